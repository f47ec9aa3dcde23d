"""What is compared must be results of studies."""

from pathlib import Path

import pytest

from tombola.errors import InvalidResults
from tombola.study.comparing import differences


@pytest.mark.parametrize("text", ["[]", "5", "null", '{"searches": 5}', '{"searches": ["a"]}', "{", "[" * 100_000])
def test_a_result_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    for name, body in (("whole", '{"searches": {}}'), ("harmed", text)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(body)
    assert differences(tmp_path / "whole", tmp_path / "whole") == []
    for one, other in (("whole", "harmed"), ("harmed", "whole")):
        with pytest.raises(InvalidResults, match=r"harmed/result.json is no study's result: .*Run the study again"):
            differences(tmp_path / one, tmp_path / other)
