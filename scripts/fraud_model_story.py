# mypy: disable-error-code="import-untyped"
"""The cells of docs/fraud-model.md, in jupytext's percent format: an editor that knows notebooks opens it as one.

Run by scripts/fraud_model_page.py in a directory with a copy of feature_repo. Bash cells are comments to Python; braces
in a markdown cell are names of the cells before it.
"""

# %% [markdown]
# # From labels to a served model
#
# Written by `python scripts/fraud_model_page.py`, which runs every block of this page, from the top, in one directory
# with a copy of `feature_repo`; do not edit. A test runs it too, and compares what comes out.
#
# A data scientist gets labels: these payments were fraud. This page goes from there to a model that scores a payment
# while it waits, on the features of the service `fraud_detection`, and shows that in production the model is told the
# same as in training.
#
# ```text
# payments ──> event log ──┐
#                          ├── featurestore history ──> training set ──> model ──┐
# labels, a week late ─────┘                                                     ├── the same scores?
# payments ──> stream ──> store ──> gRPC server ── lookup as of a payment ───────┘
# ```

# %%
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from featurestore.client import LookupClient
from featurestore.testing import simulator
from featurestore.training import EventLog
from scripts import fraud_model_pictures as pictures

# %% [markdown]
# ## Payments
#
# Six weeks of payments, simulated; a log directory stands for Kafka. Three kinds of fraud are in them: card numbers
# that are tried out at a web shop, stolen cards, and terminals where cloned cards are cashed in. There is more of it
# than in life, so that few payments show something. Labels come apart from the payments, as chargebacks do.

# %%
start, days = pd.Timestamp("2025-01-06", tz="UTC"), 42
start_ms, end_ms = (int((start + pd.Timedelta(days=day)).timestamp() * 1000) for day in (0, days))
size = simulator.PopulationSize(cards=1_500, merchants=300, markets=6)
simulation = simulator.Simulation(simulator.Scenario(start_ms, end_ms, seed=7, size=size, campaigns_per_day=2.5))
log = simulator.open_sink("log:data/log", simulation.population)
label_file = simulator.LabelsWriter(Path("data/labels.parquet"))
for batch in simulation.batches():
    log.write(batch)
    label_file.write(batch)
log.close()
label_file.close()

# %% [markdown]
# What sales knows of the merchants is exported every night; the feature view `merchant_profile` is materialized from
# it.

# %%
merchants = Path("feature_repo/data/merchants.parquet")
simulator.write_merchant_table(simulation.population, merchants, updated_at_ms=start_ms)
one_night = pd.read_parquet(merchants)
nights = [one_night.assign(updated_at=start + pd.Timedelta(days=day)) for day in range(days)]
pd.concat(nights).to_parquet(merchants, index=False)

# %% [markdown]
# ## Definitions and history
#
# The definitions are those of the example, but for one thing: the store answers exactly for moments up to `lookback`
# before an entity's newest event, a minute unless said otherwise. Live payments need no more. This page asks later for
# payments of a whole day, so it says so. The event log is the history of everything that was on the topic.

# %% language="bash"
# sed -i 's/^    source=transactions,/&\n    lookback="1d",/' feature_repo/*_views.py
# featurestore apply | tail -1
# featurestore event-log run --log-dir data/log --until-end

# %% [markdown]
# ## Label rows
#
# A row is a payment that somebody has to decide on: not a refund, and a producer's retry is no second payment. Its
# label time is its own time, and windows end before it: the row does not know its own payment, nor anything later.
# Whether the payment was declined is what was decided then, so it is no input either.

# %%
keys = ["card_id", "merchant_id", "terminal_id"]
said = ["amount", "market", "merchant_category", "is_card_present", "is_refund"]
history = EventLog("feature_repo/data/event_log/transactions")
payments = history.to_table(["transaction_id", "event_time", *keys, *said]).to_pandas()
payments = payments.rename(columns={"merchant_category": "category"})  # merchant_profile has a feature of that name
payments = payments[~payments.is_refund].drop(columns="is_refund").drop_duplicates("transaction_id")
labels = pd.read_parquet("data/labels.parquet").drop_duplicates("transaction_id")
payments = payments.merge(labels, on="transaction_id").sort_values(["event_time", "transaction_id"], ignore_index=True)
payments["day"] = (payments.event_time - start).dt.days

# %% [markdown]
# It takes a week until a fraud is reported. On the morning of day 35, when the model is trained, frauds up to day 27
# are known, and those of the week between are not: a model that is tested right behind its training data has seen
# labels that nobody had. The first two weeks only fill the windows.

# %%
report_delay_days, trained_on_day = 7, 35
period = pd.Series("not used", payments.index)
period[(payments.day >= 14) & (payments.day < trained_on_day - report_delay_days)] = "train"
period[payments.day >= trained_on_day] = "test"
asked = payments[period != "not used"].assign(period=period).reset_index(drop=True)
asked.to_parquet("data/asked.parquet", index=False)
summary = asked.groupby("period").is_fraud.agg(payments="size", frauds="sum", share="mean").loc[["train", "test"]]
print(summary.to_string(float_format="{:.4f}".format))

# %%
periods = {"fills windows": range(14), "train": range(14, 28), "not reported yet": range(28, 35), "test": range(35, 42)}
pictures.draw_days(payments, periods)

# %% [markdown]
# ![Payments and frauds a day, with the periods for training and test](images/fraud-model-days.svg)
#
# ## The training set
#
# One command adds the features as they were at each row's time; [training sets](training-sets.md) has the details, and
# a Python function that does the same. So does the [stock Feast SDK](feast-offline-store.md).

# %% language="bash"
# featurestore history --entities data/asked.parquet --timestamp-column event_time --service fraud_detection \
#   --table merchant_profile=feature_repo/data/merchants.parquet:updated_at --out data/training_set.parquet

# %%
training_set = pq.read_table("data/training_set.parquet")
features = training_set.drop_columns(list(asked.columns))  # rows and their order are those that were asked
is_fraud = asked.is_fraud.to_numpy()
is_train, is_test = (asked.period == "train").to_numpy(), (asked.period == "test").to_numpy()
print(f"{features.num_rows:,} rows, {features.num_columns} features")

# %%
pictures.draw_features(features.filter(pa.array(is_train)).to_pandas(), asked.amount[is_train], is_fraud[is_train])

# %% [markdown]
# The dashed line is the share over all training payments. An amount says little by itself, since every market has its
# own currency; against the merchant's or the card's own mean it says much.
#
# ![Share of frauds by the value of four features](images/fraud-model-features.svg)
#
# ## The model
#
# One function makes the model's inputs from a payment and its features, in training and in production. Nulls stay: the
# trees have a side for them. For comparison there is a second model, which sees just what the payment itself says.

# %%
categories = {name: pd.CategoricalDtype(sorted(asked[name].unique())) for name in ("market", "category")}


def raw_inputs(rows: pd.DataFrame) -> pd.DataFrame:
    """What the payment itself says."""
    inputs = rows[["amount", "is_card_present"]].astype(float).assign(hour=rows.event_time.dt.hour)
    return inputs.assign(**{name: rows[name].astype(kind) for name, kind in categories.items()})


def model_inputs(rows: pd.DataFrame, answers: pa.Table) -> pd.DataFrame:
    """The payment with its features: numbers as they are, moments as ages, amounts against what is usual."""
    raw, found = raw_inputs(rows), answers.to_pandas().set_index(rows.index)
    return raw.join(found.select_dtypes(["number", "bool"]).astype(float)).assign(
        amount_over_card_mean=rows.amount / found.card_amount_mean_30d,
        amount_over_merchant_mean=rows.amount / found.merchant_amount_mean_30d,
        card_age_days=(rows.event_time - found.card_event_time_first_lifetime) / pd.Timedelta(days=1),
        card_idle_minutes=(rows.event_time - found.card_event_time_last_lifetime) / pd.Timedelta(minutes=1),
        is_market_of_last=(rows.market == found.card_market_last_1d)
        .where(found.card_market_last_1d.notna())
        .astype(float),
    )


def fitted(inputs: pd.DataFrame) -> HistGradientBoostingClassifier:
    """A small model of the training rows."""
    model = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=15, min_samples_leaf=40, early_stopping=False, random_state=0
    )
    return model.fit(inputs[is_train], is_fraud[is_train])


raw, full = raw_inputs(asked), model_inputs(asked, features)
raw_model, model = fitted(raw), fitted(full)
scores = {
    "payment alone": raw_model.predict_proba(raw[is_test])[:, 1],
    "with features": model.predict_proba(full[is_test])[:, 1],
}

# %% [markdown]
# ## How good it is
#
# Average precision and the area under the ROC curve look at all thresholds. The people who look into suspicions have
# time for 10 cards a day. Card precision, as the [Fraud Detection
# Handbook](https://fraud-detection-handbook.github.io) has it, is the share of cards with fraud among the 10 with the
# highest scores of a day; a card that is caught is blocked and does not come again.

# %%
cards_a_day = 10


def card_precision(rows: pd.DataFrame, score: np.ndarray) -> pd.DataFrame:
    """Of each day: the share of cards with fraud among the most suspicious ones, and the best that was possible."""
    blocked: set[str] = set()
    found = {}
    for day, of_day in rows.assign(score=score).groupby("day"):
        alive = of_day[~of_day.card_id.isin(blocked)].groupby("card_id").agg({"score": "max", "is_fraud": "max"})
        suspects = alive.sort_values("score", ascending=False, kind="stable").head(cards_a_day)
        caught = suspects.index[suspects.is_fraud]
        found[day] = {"precision": len(caught) / cards_a_day, "possible": min(1, alive.is_fraud.sum() / cards_a_day)}
        blocked.update(caught)
    return pd.DataFrame(found).T


test, is_test_fraud = asked[is_test], is_fraud[is_test]
by_day = {name: card_precision(test, score) for name, score in scores.items()}
quality = pd.DataFrame(
    {
        name: {
            "average precision": average_precision_score(is_test_fraud, score),
            "area under ROC": roc_auc_score(is_test_fraud, score),
            f"card precision at {cards_a_day}": by_day[name].precision.mean(),
            "... possible": by_day[name].possible.mean(),
        }
        for name, score in scores.items()
    }
)
print(quality.to_string(float_format="{:.3f}".format))
baseline_ap, model_ap = quality.loc["average precision"]

# %%
curves = {name: precision_recall_curve(is_test_fraud, score)[:2] for name, score in scores.items()}
pictures.draw_quality(curves, by_day, chance=is_test_fraud.mean())

# %% [markdown]
# ![Precision against recall, and card precision of each test day](images/fraud-model-quality.svg)
#
# Features make the difference: average precision {baseline_ap:.2f} without them, {model_ap:.2f} with them. What a
# payment says itself gives away who tries numbers out, by tiny amounts, and little else. Simulated fraud comes in
# campaigns and is cruder than the real one; do not expect such figures in life.
#
# Which features? Each group in turn is shuffled over the test payments, all windows of a function together, since one
# stands in for another; what the average precision loses is what only this group knew.

# %%
random = np.random.default_rng(0)
some = np.flatnonzero(is_test_fraud | (random.random(len(test)) < 0.1))
sample, sample_fraud = full[is_test].iloc[some], is_test_fraud[some]
groups: dict[str, list[str]] = {}
for name in full.columns:
    groups.setdefault(re.sub(r"(_\d+[mhd]|_lifetime)+(_offset_7d)?$", "", name), []).append(name)
whole = average_precision_score(sample_fraud, model.predict_proba(sample)[:, 1])
losses: dict[str, list[float]] = {group: [] for group in groups}
for group, names in groups.items():
    for _ in range(3):
        shuffled = sample.copy()
        shuffled[names] = sample[names].iloc[random.permutation(len(sample))].set_axis(sample.index)
        losses[group].append(whole - average_precision_score(sample_fraud, model.predict_proba(shuffled)[:, 1]))
pictures.draw_importance(pd.DataFrame(losses))

# %% [markdown]
# Declines at the terminal say most: nobody knows a stolen number by its payment, but somebody has just refused others.
#
# ![Average precision that is lost without a group of features](images/fraud-model-importance.svg)
#
# ## In production
#
# The same payments go through the stream into the online store, here an embedded Valkey; the profile of the merchants
# is materialized by the stock Feast SDK.

# %% language="bash"
# featurestore stream --log-dir data/log --until-end
# featurestore serve --port 6566 > data/serve.log 2>&1 &
# echo $! > data/serve.pid

# %%
store = FeatureStore("feature_repo")
end = start + pd.Timedelta(days=days)
store.materialize(end - pd.Timedelta(days=1), end, feature_views=["merchant_profile"])

# %% [markdown]
# Now the risk model's side: every payment of the last day asks for its features, as of its own moment, and is scored.

# %%
is_last_day = (asked.day == days - 1).to_numpy()
last_day, offline = asked[is_last_day], features.filter(pa.array(is_last_day))


def look_up(client: LookupClient, rows: pd.DataFrame) -> pa.Table:
    """The features of some payments, each as of its own time."""
    entities = {key: rows[key].tolist() for key in keys}
    as_of_ms = rows.event_time.astype("datetime64[ms, UTC]").astype("int64").tolist()
    return pa.table(client.lookup("fraud_detection", entities, as_of_ms=as_of_ms).to_dict(), schema=offline.schema)


with LookupClient("127.0.0.1:6566", timeout_s=60.0) as client:
    online = pa.concat_tables(look_up(client, last_day[first : first + 500]) for first in range(0, len(last_day), 500))


def differs(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """Where two columns differ: doubles by more than 1e-9 of their value, everything else at all."""
    if pa.types.is_floating(one.type):
        is_same = np.isclose(one.to_numpy(), other.to_numpy(), rtol=1e-9, atol=0.0)
    else:
        is_same = np.asarray(pc.fill_null(pc.equal(one, other), False))
    both_null = np.asarray(one.is_null()) & np.asarray(other.is_null())
    return np.asarray(~(is_same | both_null))


mismatches = {name: int(differs(online[name], offline[name]).sum()) for name in offline.column_names}
score_online, score_offline = (model.predict_proba(model_inputs(last_day, each))[:, 1] for each in (online, offline))
print(f"payments            {len(last_day):,}")
print(f"values compared     {online.num_rows * online.num_columns:,}")
print(f"mismatches          {sum(mismatches.values())}")
print(f"scores that differ  {(score_online != score_offline).sum()}")
pictures.draw_parity(score_offline, score_online, last_day.is_fraud.to_numpy())

# %% [markdown]
# ![Scores from the training set and from lookups lie on the diagonal](images/fraud-model-parity.svg)
#
# No value differs, so no score does: the model in production is the model that was tested. On a live system
# [parity](parity.md) checks the same, every day, on what was really answered.

# %% language="bash"
# kill "$(cat data/serve.pid)"
# featurestore store stop

# %% [markdown]
# ## On data that nobody here wrote
#
# `python -m scripts.handbook_model FILE` does the same with the transactions of the Fraud Detection Handbook, which
# are not part of this project: one week of training, one of delay, one of test, and the book's fifteen inputs. A
# training set by our definitions gives the models of the book the figures that the book has published.
#
# | on the test week | AUC ROC: book | ours | average precision: book | ours | card precision at 100: book | ours |
# |---|---|---|---|---|---|---|
# | logistic regression | 0.871 | 0.870 | 0.606 | 0.605 | 0.291 | 0.291 |
# | decision tree, depth 2 | 0.763 | 0.763 | 0.496 | 0.496 | 0.241 | 0.240 |
# | decision tree, any depth | 0.788 | 0.788 | 0.309 | 0.307 | 0.243 | 0.244 |
# | random forest | 0.867 | 0.867 | 0.658 | 0.658 | 0.287 | 0.287 |
#
# The book's windows include the payment that is judged. A lookup comes before it, so its windows do not; the script
# prints the models with either.
