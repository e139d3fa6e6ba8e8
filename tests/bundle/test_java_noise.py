"""The filter of a JVM's stderr, on lines recorded from Spark 4.2. Needs no Spark."""

import pytest

from pipelines.java_noise import Forwarder

WARNING = b"WARNING: Using incubator modules: jdk.incubator.vector\n"
DOWNLOADS = (
    b"downloading https://repo1.maven.org/maven2/io/delta/delta-spark_4.2_2.13/4.4.0/a.jar ...\n"
    b"\t[SUCCESSFUL ] io.delta#delta-spark_4.2_2.13;4.4.0!delta-spark_4.2_2.13.jar (852ms)\n"
    b"downloading https://repo1.maven.org/maven2/io/delta/delta-storage/4.4.0/b.jar ...\n"
)
REPORT_START = (
    b":: loading settings :: url = jar:file:/x/ivy-2.5.3.jar!/org/apache/ivy/ivysettings.xml\n"
    b"Ivy Default Cache set to: /root/.ivy2.5.2/cache\n"
    b"The jars for the packages stored in: /root/.ivy2.5.2/jars\n"
    b"io.delta#delta-spark_4.2_2.13 added as a dependency\n"
    b":: resolving dependencies :: org.apache.spark#spark-submit-parent-c1e77d57;1.0\n"
    b"\tconfs: [default]\n"
)
REPORT_END = (
    b":: retrieving :: org.apache.spark#spark-submit-parent-c1e77d57\n"
    b"\tconfs: [default]\n"
    b"\t0 artifacts copied, 2 already retrieved (0kB/25ms)\n"
)
REPORT = REPORT_START + REPORT_END
FAULT = b'Exception in thread "main" java.lang.RuntimeException: [unresolved dependency]\n'


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"", b""),
        (WARNING, b""),
        (REPORT, b""),
        (WARNING + REPORT + b"a\nb", b"a\nb"),
        (b"a\n" + REPORT + b"b\n" + WARNING + b"c\n", b"a\nb\nc\n"),
        (REPORT_START + DOWNLOADS + REPORT_END, DOWNLOADS.splitlines(keepends=True)[0]),
        (REPORT_START + FAULT, REPORT_START + FAULT),  # Ivy failed: nothing is lost
        (REPORT_START + b"\tno line feed", REPORT_START + b"\tno line feed"),
        (
            b"a\n\r[Stage 0:>  (0 + 1) / 4]\r     \rb\n",
            b"a\n\r[Stage 0:>  (0 + 1) / 4]\r     \rb\n",
        ),
        (b"\xff\xfe\n", b"\xff\xfe\n"),
    ],
)
def test_the_same_is_shown_wherever_the_chunks_end(written: bytes, shown: bytes) -> None:
    for size in range(1, len(written) + 2):
        forwarder = Forwarder(shows_download=True)
        chunks = [written[start : start + size] for start in range(0, len(written), size)]
        parts = [forwarder.feed(chunk) for chunk in chunks]
        assert b"".join([*parts, forwarder.rest()]) == shown


def test_a_progress_bar_is_shown_at_once_and_a_line_when_it_is_complete() -> None:
    forwarder = Forwarder(shows_download=True)
    assert forwarder.feed(b"\r[Stage 0:>") == b"\r[Stage 0:>"
    assert forwarder.feed(b"(1 + 3) / 4]") == b"(1 + 3) / 4]"
    assert forwarder.feed(b"\nWARN") == b"\n"
    assert forwarder.feed(b"ING: low disk\n") == b"WARNING: low disk\n"
    assert forwarder.rest() == b""


def test_ivys_report_is_held_while_ivy_is_at_work() -> None:
    forwarder = Forwarder(shows_download=True)
    assert forwarder.feed(REPORT_START) == b""
    assert forwarder.held == REPORT_START
    assert forwarder.feed(REPORT_END) == b""
    assert forwarder.held == b""
