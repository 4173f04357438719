"""Apache Beam, for every command that runs on many machines: the extra [beam]."""

from collections.abc import Sequence

from biam_tf.errors import UserError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.utils.shared import Shared as Shared
except ImportError as error:
    raise UserError(
        "Apache Beam is not installed; install it with pip install 'biam-tf[beam]'"
    ) from error

# DirectRunner's own engine for batch pipelines; named, it does not look for another one online.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def new_pipeline(options: Sequence[str]) -> tuple[beam.Pipeline, str]:
    """Returns an empty pipeline and the name of its runner.

    Args:
        options: of Beam, such as `--runner=FlinkRunner`; without a runner it runs in this process.

    Raises:
        UserError: the runner is unknown or not installed.
        SystemExit: the options are not valid; Beam's parser has printed the reason.
    """
    settings = PipelineOptions(list(options))
    standard = settings.view_as(StandardOptions)
    standard.runner = standard.runner or LOCAL_RUNNER
    try:
        return beam.Pipeline(options=settings), standard.runner
    except (ValueError, ImportError) as error:
        raise UserError(f"--runner={standard.runner}: {error}") from error
