"""What happens to data: one module a stage, with the job's name."""
