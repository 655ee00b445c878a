"""What the estimators share: scikit-learn's habits, networks, batches, input and its scaling."""
