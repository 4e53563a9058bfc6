"""The MNIST CNN, trained in one of the modes."""
