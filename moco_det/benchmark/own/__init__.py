"""Did it help my detector? A study of the user's own data: ``moco-det benchmark own``."""
