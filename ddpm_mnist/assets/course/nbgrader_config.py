# For nbgrader (https://nbgrader.readthedocs.io), which hands out the exercises, collects and grades them. Copy this folder, and in the copy:
#     nbgrader generate_assignment scheduler      # makes release/scheduler/scheduler.ipynb, without the solutions
#     nbgrader autograde scheduler                # grades submitted/STUDENT/scheduler/scheduler.ipynb of every student
#     nbgrader generate_feedback scheduler        # pages for the students
#     nbgrader export                             # grades.csv
# and so for unet, train, sample and fid. A task gives its points if its check is silent, and none otherwise. A notebook
# that kills its own Python (`os._exit`) or has another name gets no row at all: autograde says so, and goes on with the others.
c = get_config()

c.CourseDirectory.course_id = "ddpm_mnist"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError  # your code here"}
c.OverwriteCells.add_missing_cells = True  # a check that a student has deleted comes back
c.Execute.timeout = 120  # seconds a cell; a cell that hangs is stopped, and the next one runs
