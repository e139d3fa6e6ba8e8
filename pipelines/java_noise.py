"""Filter for lines that Java and Ivy write to stderr at every start."""

# Spark needs the incubator module, so the JVM prints this at every start.
INCUBATOR_WARNING = b"WARNING: Using incubator modules: "
# Ivy reports how it resolves Spark's packages, from the first of these lines to the last.
IVY_STARTS = (b":: loading settings ::", b"Ivy Default Cache set to")
IVY_DOWNLOADS = b"downloading "
IVY_ENDS = (b" artifacts copied, ", b" already retrieved (")


class Forwarder:
    """Forwards a JVM's stderr without the JVM's warning and Ivy's report.

    shows_download  show the line of the first download, which may take a while
    A report that does not reach its end is shown. Lines are forwarded when they are complete;
    progress bars, which start with a carriage return, at once.
    """

    def __init__(self, *, shows_download: bool) -> None:
        self._shows_download = shows_download
        self.held = b""  # an incomplete report: Ivy is at work, or has failed
        self._partial_line = b""
        self._is_in_progress_bar = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the text to show after this chunk."""
        shown = b""
        lines = (self._partial_line + chunk).splitlines(keepends=True)
        self._partial_line = b""
        for line in lines:
            is_complete = line.endswith((b"\n", b"\r"))
            if self._is_in_progress_bar or (is_complete and self._is_shown(line)):
                shown += line
            elif not is_complete:
                self._partial_line = line
            if is_complete:
                self._is_in_progress_bar = line.endswith(b"\r")
        return shown

    def rest(self) -> bytes:
        """Return the text to show at the end: an incomplete report or line."""
        shown = self._partial_line if self._is_shown(self._partial_line) else b""
        return self.held + shown

    def _is_shown(self, line: bytes) -> bool:
        if not self.held and not line.startswith(IVY_STARTS):
            return not line.startswith(INCUBATOR_WARNING)
        is_first_download = line.startswith(IVY_DOWNLOADS) and IVY_DOWNLOADS not in self.held
        is_last = all(part in line for part in IVY_ENDS)
        self.held = b"" if is_last else self.held + line
        return is_first_download and self._shows_download
