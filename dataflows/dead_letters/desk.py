"""The dead letters of a project's sources, for whoever looks after them: `featurestore dead-letters`.

As the stream finds its log and its letters, by the same options and environment variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dataflows.dead_letters.book import FileBook, KeptLetter, Wanted
from dataflows.dead_letters.erasing import ErasedLetters, LetterJudge, erase_from_files, erase_from_topic
from dataflows.dead_letters.kafka_book import KafkaBook
from dataflows.dead_letters.policy import payload_policy
from dataflows.dead_letters.replay import Judged, ReplayCheck
from dataflows.logs.file_erasing import ErasedRecords, RecordEraser
from dataflows.logs.file_log import FileLog
from dataflows.logs.kafka_log import KafkaLog
from dataflows.logs.opening import LOOK_OPTIONS, log_of
from dataflows.settings import OPTIONS, Option, complete_options, options_setting, path_setting
from featurestore.clock import SystemClock
from featurestore.core.spec import SourceSpec
from featurestore.definitions.compile.versions import stored_views
from featurestore.definitions.registry import read_registry
from featurestore.errors import InvalidRequest

DESK_OPTIONS: tuple[Option, ...] = tuple(
    option
    for option in OPTIONS
    if option.name in {"project", "registry", "dead_letter_dir", "dead_letter_key_file", *LOOK_OPTIONS}
)
"""What it needs to know of what the stream does."""


class Desk:
    """Finds letters, and replays them.

    Args:
        given: texts of the stream's options, by name; those that are absent come from the environment.
        environment: variables.

    Raises:
        InvalidRequest: an option is missing or malformed.
        SourceUnavailable: the registry does not answer.

    Attributes:
        access: what the registry permits.
    """

    def __init__(self, given: Mapping[str, str], environment: Mapping[str, str]) -> None:
        texts = complete_options(DESK_OPTIONS, given, environment)
        clock = SystemClock()
        repo = read_registry(texts["registry"], project=texts["project"])
        self.access, self._views = repo.access, (*stored_views(repo), *repo.views)
        sources = {view.source: None for view in self._views}
        log_dir, letter_dir = path_setting(texts["log_dir"]), path_setting(texts["dead_letter_dir"])
        policy = payload_policy("", path_setting(texts["dead_letter_key_file"]))
        options = options_setting("kafka", texts["kafka_config"], texts["kafka_option"])
        self._options, self._servers = options, dict[str, str]()
        self._log = log = log_of(texts, clock)
        self._book: FileBook | KafkaBook
        if log_dir is not None:
            self._book = FileBook(letter_dir or log_dir, log_dir, policy)
        elif isinstance(log, KafkaLog):
            self._servers = {one.topic: log.servers(one) for source in sources for one in source.per_topic}
            self._book = KafkaBook(self._servers, options, policy)
            if letter_dir is not None:
                self._book = FileBook(letter_dir, None, policy)
        self._sources: dict[str, SourceSpec] = {one.topic: one for source in sources for one in source.per_topic}
        self._check = ReplayCheck(self._log, repo, clock)

    def kafka_settings(self, topic: str) -> dict[str, str | int | float | bool] | None:
        """Of librdkafka, for the cluster of a source's topic; None where the log is no Kafka."""
        servers = self._servers.get(topic)
        return None if servers is None else {**self._options, "bootstrap.servers": servers}

    @property
    def now_ms(self) -> int:
        """The clock."""
        return SystemClock().now_ms()

    def topics(self, sources: Sequence[str]) -> list[str]:
        """Topics of some sources, or of all.

        Raises:
            InvalidRequest: there is no such source.
        """
        known = sorted({source.name for source in self._sources.values()})
        for name in sources:
            if name not in known:
                raise InvalidRequest(f'no view reads a source "{name}"', hint=f"sources are: {', '.join(known)}")
        return sorted(topic for topic, source in self._sources.items() if not sources or source.name in sources)

    def readers(self, name: str) -> list[str]:
        """Views that read a source, or a topic, of that name."""
        names = ((view.name, view.source) for view in self._views)
        return [view for view, source in names if name in (source.name, *(one.topic for one in source.per_topic))]

    def find(self, topics: Sequence[str], wanted: Wanted) -> list[KeptLetter]:
        """The wanted letters of some topics."""
        return self._book.find(topics, wanted)

    def erase(self, join_key: str, value: bytes, before_ms: int, *, is_trial: bool = False) -> list[ErasedLetters]:
        """Take the letters of somebody's records away; of each topic that has any, how many there were.

        Args:
            join_key: name of the column.
            value: canonical bytes.
            before_ms: records that happened then or later stay.
            is_trial: only look.

        Raises:
            SourceUnavailable: they cannot be read, or written, now.
            InvalidRequest: Kafka refuses.
        """
        judge = LetterJudge(self._log, self._sources, join_key, value, before_ms, SystemClock())
        found = []
        for topic in sorted(self._sources):
            if isinstance(self._book, FileBook):
                found.append(erase_from_files(self._book, topic, judge, is_trial=is_trial))
            else:
                found.append(erase_from_topic(self._book, topic, judge, is_trial=is_trial))
        return [one for one in found if one.erased or one.unknown]

    def erase_records(
        self, join_key: str, value: bytes, before_ms: int, *, is_trial: bool = False
    ) -> list[ErasedRecords]:
        """Take somebody's records out of an embedded log; of each topic, how many there were; of Kafka's topics none.

        Args:
            join_key: name of the column.
            value: canonical bytes.
            before_ms: records that happened then or later stay.
            is_trial: only look.

        Raises:
            SourceUnavailable: a file cannot be read, or written, now.
        """
        log = self._log
        if not isinstance(log, FileLog):
            return []
        sources = [one for _, one in sorted(self._sources.items()) if one.column(join_key) is not None]
        erasers = [RecordEraser(log, one, join_key, value, before_ms, SystemClock()) for one in sources]
        return [one.erase(is_trial=is_trial) for one in erasers]

    def judge(self, letters: Sequence[KeptLetter]) -> list[Judged]:
        """Which of them can be replayed."""
        return self._check.judge(letters)

    def replay(self, letters: Sequence[KeptLetter]) -> int:
        """Replay letters that were judged to be fit; how many were."""
        by_topic: dict[str, list[KeptLetter]] = {}
        for letter in letters:
            by_topic.setdefault(letter.topic, []).append(letter)
        return sum(self._book.replay(of_topic) for _, of_topic in sorted(by_topic.items()))
