"""What a tenant is told that may have no more open jobs."""

from tether.admission.open_job_quota import over_quota


def test_who_has_open_jobs_is_told_to_wait_and_who_may_have_none_is_not():
    full, none = over_quota("acme", 3), over_quota("acme", 0)
    assert "has 3 open jobs, which is its quota: wait" in str(full)
    assert full.retry_after == 1.0
    assert "until an operator raises it" in str(none)
    assert none.retry_after is None, "clients would wait for it"
