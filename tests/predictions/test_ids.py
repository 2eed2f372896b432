"""Prediction ids: unique, fixed in length, and verified without a lookup."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.errors import Corrupted, Invalid
from relevo.predictions.ids import ID_LENGTH, Issuer, is_unsampled, load_key, new_boot, verify

KEY = b"k" * 32


@given(st.integers(0, 65_535), st.integers(-(10**15), 10**16), st.integers(0, 2**63 - 1))
def test_an_id_says_what_it_was_issued_for(number: int, at_us: int, boot: int) -> None:
    issued = verify(KEY, Issuer(KEY, number, boot).issue(at_us, 2)[1])
    assert (issued.endpoint_number, issued.boot, issued.sequence) == (number, boot, 1)
    assert issued.event_hour_at.timestamp() == at_us // 3_600_000_000 * 3600


def test_ids_are_unique_url_safe_and_of_fixed_length() -> None:
    issuer = Issuer(KEY, 7, new_boot())
    issued = [prediction_id for n in (1, 10, 1000) for prediction_id in issuer.issue(1_376_524_800_000_000, n)]
    assert len(set(issued)) == 1011
    assert {len(prediction_id) for prediction_id in issued} == {ID_LENGTH}
    assert all(letter.isalnum() or letter in "-_" for prediction_id in issued for letter in prediction_id)


def test_a_sample_is_decided_by_the_id_and_is_of_the_size_that_is_asked_for() -> None:
    issuer = Issuer(KEY, 7, new_boot())
    issued = issuer.issue(0, 20_000, 0.1)
    said = [verify(KEY, one) for one in issued]
    assert [one.is_unsampled for one in said] == [is_unsampled(one) for one in issued]
    assert [one.sequence for one in said] == list(range(20_000))
    assert 0.09 < sum(not one.is_unsampled for one in said) / 20_000 < 0.11
    assert not any(map(is_unsampled, issuer.issue(0, 1000)))


def test_the_same_ids_are_kept_again_and_a_larger_sample_holds_the_smaller() -> None:
    def kept(sample: float) -> set[int]:
        issued = Issuer(KEY, 7, 11).issue(0, 2_000, sample)
        return {place for place, one in enumerate(issued) if not is_unsampled(one)}

    assert kept(0.3) == kept(0.3)
    assert kept(0.1) < kept(0.3) < kept(1.0)


@pytest.mark.parametrize("place", range(ID_LENGTH))
def test_an_id_with_another_letter_anywhere_is_refused(place: int) -> None:
    issued = Issuer(KEY, 7, new_boot()).issue(0, 1)[0]
    forged = issued[:place] + ("A" if issued[place] != "A" else "B") + issued[place + 1 :]
    with pytest.raises(Invalid):
        verify(KEY, forged)


@given(st.one_of(st.text(max_size=50), st.text("ABab01-_+/=", min_size=ID_LENGTH, max_size=ID_LENGTH)))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        verify(KEY, text)


def test_an_id_of_another_installation_is_refused() -> None:
    with pytest.raises(Invalid):
        verify(b"o" * 32, Issuer(KEY, 7, new_boot()).issue(0, 1)[0])


def test_the_key_is_made_once_and_private_when_many_start_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_key(tmp_path), range(64)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["prediction-id.key"]
    assert stat.S_IMODE((tmp_path / "prediction-id.key").stat().st_mode) == 0o600


def test_a_key_file_of_the_wrong_length_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "prediction-id.key").write_bytes(b"short")
    with pytest.raises(Corrupted, match="32 bytes"):
        load_key(tmp_path)


def test_a_later_boot_is_larger_and_fits_a_signed_number() -> None:
    now = int(datetime.now(UTC).timestamp())
    assert now - 1 <= new_boot() >> 31 <= now + 1
    assert new_boot() < 2**63


@pytest.mark.parametrize("year", [1, 9999])
def test_an_event_time_out_of_range_still_gets_an_id(year: int) -> None:
    at_us = int(datetime(year, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000
    issued = verify(KEY, Issuer(KEY, 7, 1).issue(at_us, 1)[0])
    assert issued.event_hour_at.year in (1013, 2926)
