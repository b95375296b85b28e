def check_environment(): pass
