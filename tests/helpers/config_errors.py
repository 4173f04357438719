"""Messages of configurations that are refused."""

import pytest

from biam_tf.errors import UserError
from training.config import load_config


def message_of(path, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return str(caught.value)
