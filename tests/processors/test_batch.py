"""processors.batch: accepted for otelcol's configurations, holds nothing."""

import pytest
from pydantic import ValidationError

from collector.processors.batch import JoinLater
from tests.support import batch, build, span, traces


def test_a_batch_passes_at_once_so_that_nothing_is_acknowledged_before_it_is_queued():
    """R-113 (partly)."""
    processor, given = build(JoinLater), batch(traces(span()))
    assert processor.process(given, 0.0) is given
    assert processor.held() == 0


def test_every_option_of_otelcol_loads():
    config = JoinLater.Config.model_validate({
        "timeout": "5s", "send_batch_size": 100, "send_batch_max_size": 200, "metadata_keys": ["a"], "metadata_cardinality_limit": 5,
    })  # fmt: skip
    assert config.metadata_keys == ["a"]


def test_a_maximum_below_the_size_is_refused():
    with pytest.raises(ValidationError, match="send_batch_max_size must be greater or equal to send_batch_size"):
        JoinLater.Config.model_validate({"send_batch_size": 100, "send_batch_max_size": 10})
