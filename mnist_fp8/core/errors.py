"""The errors that are answers: each is one line for the person who asked, and has an exit code of its own."""


class AnswerError(Exception):
    """What was asked for cannot be done, or did not hold; any other exception is a defect of mnist_fp8."""

    exit_code = 2


class ConfigError(AnswerError, ValueError):
    """Something asked for cannot be done; the message says what is wrong, what was expected and what to do."""


class EnvError(AnswerError, RuntimeError):
    """An environment cannot be made or has failed; the message says what failed, and what to do."""


class RecordError(AnswerError, ValueError):
    """A stored record cannot be read or compared; the message says why."""


class TeUnavailableError(AnswerError, RuntimeError):
    """Transformer Engine cannot run here in the way asked for; the message says why and what to do."""


class Float8MissingError(AnswerError, RuntimeError):
    """A model that should compute in FP8 does not; the message lists where."""

    exit_code = 1
