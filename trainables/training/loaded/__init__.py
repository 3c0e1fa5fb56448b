"""What a workbench keeps loaded between trials: images as views show them, and the teacher's answers."""
