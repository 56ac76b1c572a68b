"""Where the events of stream views come from, and the tables that they are enriched from."""

from featurestore.offline.training_set.histories.enriched import HistoricTables as HistoricTables
from featurestore.offline.training_set.histories.enriched import enriched_history as enriched_history
from featurestore.offline.training_set.histories.enriched import files_state as files_state
from featurestore.offline.training_set.histories.enriched import read_files as read_files
from featurestore.offline.training_set.histories.enriched import with_enriched as with_enriched
from featurestore.offline.training_set.histories.stored import EVENT_TIME as EVENT_TIME
from featurestore.offline.training_set.histories.stored import INGEST_TIME as INGEST_TIME
from featurestore.offline.training_set.histories.stored import EventLogHistory as EventLogHistory
from featurestore.offline.training_set.histories.stored import FileHistory as FileHistory
from featurestore.offline.training_set.histories.stored import History as History
from featurestore.offline.training_set.histories.stored import KeepsVersions as KeepsVersions
from featurestore.offline.training_set.histories.stored import open_dataset as open_dataset
