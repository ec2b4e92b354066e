"""Whatever way the records take, the insights are the same, byte for byte, and nothing is lost or counted twice."""

from hypothesis import given
from hypothesis import strategies as st

from core.ingest import Ingest
from core.offline import Computed, compute
from schemas import insight as insight_codec
from tests.histories import History, Sources, arrange, examples, histories
from tests.oracle import ends, window_accounts, window_totals
from tests.pipeline import CONFIG, Pipeline, Step, flat, schedules

workers = st.tuples(st.integers(1, 3), st.integers(1, 3))
placements = st.lists(st.integers(0, 1), min_size=1, max_size=4)


def offline(sources: Sources) -> Computed:
    return compute([(*source, records) for source, records in sources.items()], Ingest(partitions=1), CONFIG)


def contents(computed: Computed) -> list[bytes]:
    return [insight_codec.content(insight) for insight in computed.insights]


@examples(60)
@given(histories())
def test_the_offline_computation_equals_a_brute_force_count(history: History) -> None:
    computed = offline(arrange(history))
    found = {(each.campaign_id, each.window, each.window_start): flat(each) for each in computed.insights}
    assert found == window_totals(history)


@examples(60)
@given(histories())
def test_platforms_name_the_accounts_of_their_rows(history: History) -> None:
    found = {
        (each.campaign_id, each.window, each.window_start): {
            platform: set(part.accounts) for platform, part in each.platform_breakdown.items()
        }
        for each in offline(arrange(history)).insights
        if each.window != "1h"
    }
    assert found == window_accounts(history)


@examples(60)
@given(st.data())
def test_any_order_and_any_placement_give_the_same_insights(data: st.DataObject) -> None:
    history = data.draw(histories())
    expected = contents(offline(arrange(history)))
    shuffled = data.draw(st.permutations(history))
    assert contents(offline(arrange(shuffled, data.draw(placements)))) == expected


@examples(400)
@given(histories(), placements, workers, schedules())
def test_any_course_of_events_gives_the_insights_of_the_offline_computation(
    history: History, placement: list[int], partitions: tuple[int, int], schedule: list[Step]
) -> None:
    """Batches, redelivery, deferral, idle sources and crashes at any write: state, topic and Redis end the same."""
    sources = arrange(history, placement)
    computed = offline(sources)
    pipeline = Pipeline(sources, *partitions).run(schedule).drain()
    assert pipeline.contents() == contents(computed)
    agree_with_state(pipeline)
    accounts_for(pipeline, computed, history)


def agree_with_state(pipeline: Pipeline) -> None:
    """What readers hold is what the state says; a window that lost its content has been published empty."""
    expected = {insight.insight_id: insight for insight in pipeline.insights()}
    for identity, insight in pipeline.reader.latest.items():
        if identity in expected:
            assert insight_codec.content(insight) == insight_codec.content(expected[identity])
        else:
            assert insight.platform_breakdown == {}
    assert expected.keys() <= pipeline.reader.latest.keys()
    newest: dict[tuple[str, str], str] = {}
    for insight in expected.values():
        name = (insight.campaign_id, insight.window)
        newest[name] = max(newest.get(name, ""), insight.window_start)
    for name, (_, insight) in pipeline.hot.items():
        if name in newest:
            assert insight.window_start == newest[name]
            assert insight_codec.content(insight) == insight_codec.content(expected[insight.insight_id])
        else:
            assert insight.platform_breakdown == {}
    assert newest.keys() <= pipeline.hot.keys()


def accounts_for(pipeline: Pipeline, computed: Computed, history: History) -> None:
    """Every record and row is counted once, whatever was redelivered."""
    counted, once = pipeline.accounting(), computed.accounting
    used, dead, ignored = ends(history)
    assert counted.adds_up
    assert (counted.records, counted.rows, once.rows) == (len(history),) * 3
    assert counted.applied + counted.duplicate + counted.superseded == used
    assert (sum(counted.dead_letters.values()), sum(counted.ignored.values())) == (dead, ignored)
    assert (counted.dead_letters, counted.ignored) == (once.dead_letters, once.ignored)
    assert len(pipeline.letters) == dead
