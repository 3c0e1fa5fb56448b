"""What students are trained on and compared with: the facts of the data, and a teacher where one is heard.

A space whose objectives all do without a teacher has the stage `data` in the place of those of the teacher.
"""
