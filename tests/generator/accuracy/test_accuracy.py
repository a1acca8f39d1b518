"""The accuracy gate: metrics, limits and the words of a failure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tritonsmith_generator.accuracy.gate import LIMITS, Limits, gate, limits_for
from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.errors import InputError

ONE = np.array([[1.0, 2.0, 2.0]], np.float32)


def test_metrics_are_what_they_say() -> None:
    found = measure([ONE, ONE], [ONE + 0.3, ONE])
    assert found.relative_l2 == pytest.approx(math.sqrt(3 * 0.09) / math.sqrt(18))
    assert found.max_abs == pytest.approx(0.3)
    assert found.cosine == pytest.approx(
        np.dot([1, 2, 2, 1, 2, 2], [1.3, 2.3, 2.3, 1, 2, 2])
        / np.linalg.norm([1, 2, 2, 1, 2, 2])
        / np.linalg.norm([1.3, 2.3, 2.3, 1, 2, 2])
    )
    assert found.top1 == 1.0
    flipped = measure([ONE, ONE], [ONE[:, ::-1] * [1, 1, 3], ONE])
    assert flipped.top1 == 0.5


def test_equal_outputs_are_equal_nan_included() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    found = measure([odd], [odd.copy()])
    assert (found.relative_l2, found.max_abs, found.non_finite, found.top1) == (0, 0, 0, 1)
    zero = measure([np.zeros(3)], [np.zeros(3)])
    assert (zero.relative_l2, zero.cosine) == (0, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_or_infinity_on_one_side_fails_whatever_the_limits(bad: float, side: int) -> None:
    answers = [{"y": ONE.copy()}, {"y": ONE.copy()}]
    answers[side]["y"][0, 0] = bad
    report = gate(answers[:1], answers[1:], Limits(), "fp16")
    assert not report.passed
    assert report.try_next == "bf16"
    with pytest.raises(InputError, match="output 'y': 1 elements are NaN or infinite on one side"):
        report.raise_if_failed()


def test_infinity_of_the_other_sign_fails() -> None:
    report = gate([{"y": np.array([np.inf])}], [{"y": np.array([-np.inf])}], Limits(), "fp16")
    assert not report.passed


def test_a_failure_names_output_value_limit_and_what_to_try() -> None:
    report = gate([{"y": ONE, "z": ONE}], [{"y": ONE * 1.2, "z": ONE}], LIMITS["int8"], "int8")
    with pytest.raises(
        InputError,
        match="int8 is not accurate enough: output 'y': relative_l2 is 0.2, above the limit 0.1; "
        "try precision: fp16",
    ):
        report.raise_if_failed()
    assert report.outputs["z"].relative_l2 == 0


@pytest.mark.parametrize(
    ("limits", "metric"),
    [
        (Limits(max_abs=0.1), "max_abs is 0.4, above the limit 0.1"),
        (Limits(cosine=1.1), "cosine is 1, below the limit 1.1"),
        (Limits(top1=1.01), "top1 is 1, below the limit 1.01"),
    ],
)
def test_each_limit_is_looked_at(limits: Limits, metric: str) -> None:
    report = gate([{"y": ONE}], [{"y": ONE * np.float32(1.2)}], limits, "fp16")
    with pytest.raises(InputError, match=metric):
        report.raise_if_failed()


def test_the_advice_fits_what_failed() -> None:
    """No limit allows NaN, and a share is lowered, not raised."""

    def advice(value: float, limits: Limits) -> str:
        with pytest.raises(InputError) as caught:
            gate([{"y": ONE}], [{"y": ONE * np.float32(value)}], limits, "fp16").raise_if_failed()
        return str(caught.value).rpartition("; ")[2]

    assert advice(1.2, Limits(relative_l2=0.1)).endswith("or raise accuracy.limit")
    assert advice(-1, Limits(max_abs=0.1, top1=0.5)).endswith(
        "or raise accuracy.limit.max_abs and lower accuracy.limit.top1"
    )
    assert advice(math.nan, Limits(top1=0.5)) == "try precision: bf16, or keep layers in FP32"


def test_the_report_says_what_was_measured_and_allowed() -> None:
    classes = np.arange(4)
    limits = Limits(relative_l2=0.25, top1=0.5)
    report = gate([{"y": ONE, "n": classes}], [{"y": ONE * 1.25, "n": classes}], limits, "int8")
    assert [*report.lines()] == [
        "accuracy of 'y': relative L2 2.5e-01 (at most 0.25), largest difference 5.0e-01, "
        "cosine 1.00000, top-1 100.0% (at least 0.5)",
        "accuracy of 'n': relative L2 0.0e+00, largest difference 0.0e+00, cosine 1.00000, "
        "top-1 100.0% (at least 0.5)",
    ]


def test_integers_have_to_be_equal_enough() -> None:
    want = np.arange(100)
    close = want.copy()
    close[0] = 1
    assert gate([{"y": want}], [{"y": close}], LIMITS["fp16"], "fp16").passed
    close[1] = 0
    assert not gate([{"y": want}], [{"y": close}], LIMITS["fp16"], "fp16").passed


def test_a_zero_reference_with_other_answers_fails() -> None:
    report = gate([{"y": np.zeros(3)}], [{"y": np.ones(3)}], LIMITS["int8"], "int8")
    assert not report.passed


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="output 'z' is missing; there are: y"):
        gate([{"z": ONE}], [{"y": ONE}], Limits(), "fp16")
    with pytest.raises(InputError, match=r"shape \[3\], its reference \[1, 3\]"):
        gate([{"y": ONE}], [{"y": ONE[0]}], Limits(), "fp16")
    with pytest.raises(InputError, match="1 reference answers, 0 answers"):
        gate([{"y": ONE}], [], Limits(), "fp16")
    with pytest.raises(InputError, match="strings"):
        gate([{"y": np.array([b"a"])}], [{"y": np.array([b"a"])}], Limits(), "fp16")


def test_a_given_limit_replaces_the_default() -> None:
    assert limits_for("fp16") == LIMITS["fp16"]
    assert limits_for("fp16", Limits(relative_l2=0.5)) == Limits(relative_l2=0.5)
    assert limits_for("fp16", Limits(top1=0.9)) == Limits(relative_l2=1e-2, top1=0.9)


def test_every_chain_of_precisions_ends() -> None:
    worse = [{"y": ONE * 2}]
    for start in LIMITS:
        for bad in (worse, [{"y": ONE * np.nan}]):
            seen, current = set(), start
            while current and current not in seen:
                seen.add(current)
                current = gate([{"y": ONE}], bad, LIMITS[current], current).try_next or ""
            assert "fp32" in seen
