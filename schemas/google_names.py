"""One name for a Google Ads field, however a connector spells it: the query language's ``metrics.cost_micros``.

Spellings: Airbyte's flat keys (already so), the REST API's nested camelCase, ``metrics__costMicros`` of Singer, and
Fivetran's bare ``cost_micros``.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
LONGEST_NAME: Final = 96
DEEPEST: Final = 5

BARE_SEGMENTS_LIST: Final = """
ad_destination_type ad_format_type ad_network_type ad_using_product_data ad_using_video asset_interaction_target
auction_insight_domain click_type conversion_action conversion_action_category conversion_action_name
conversion_adjustment conversion_attribution_event_type conversion_lag_bucket conversion_or_adjustment_lag_bucket
conversion_value_rule_primary_dimension date day_of_week device external_activity_id external_conversion_source
geo_target_airport geo_target_canton geo_target_city geo_target_country geo_target_county geo_target_district
geo_target_metro geo_target_most_specific_location geo_target_postal_code geo_target_province geo_target_region
geo_target_state hotel_center_id hotel_check_in_date hotel_check_in_day_of_week hotel_city hotel_class hotel_country
hotel_date_selection_type hotel_length_of_stay hotel_price_bucket hotel_rate_rule_id hotel_rate_type hotel_state hour
interaction_on_this_extension landing_page_source match_type month month_of_year new_versus_returning_customers
partner_hotel_id product_aggregator_id product_brand product_category_level1 product_category_level2
product_category_level3 product_category_level4 product_category_level5 product_channel product_channel_exclusivity
product_condition product_country product_custom_attribute0 product_custom_attribute1 product_custom_attribute2
product_custom_attribute3 product_custom_attribute4 product_feed_label product_item_id product_language
product_merchant_id product_store_id product_title product_type_l1 product_type_l2 product_type_l3 product_type_l4
product_type_l5 quarter recommendation_type search_engine_results_page_type search_subcategory search_term
search_term_match_source search_term_match_type sk_ad_network_ad_event_type sk_ad_network_attribution_credit
sk_ad_network_coarse_conversion_value sk_ad_network_conversion_value sk_ad_network_fine_conversion_value
sk_ad_network_postback_sequence_index sk_ad_network_redistributed_fine_conversion_value sk_ad_network_source_app
sk_ad_network_source_domain sk_ad_network_source_type sk_ad_network_user_type slot travel_destination_city
travel_destination_country travel_destination_region webpage week year
"""
BARE_SEGMENTS: Final = frozenset(BARE_SEGMENTS_LIST.split())
BARE_METRICS_LIST: Final = """
impressions clicks cost_micros conversions conversions_value engagements video_views video_trueview_views
historical_quality_score
"""
BARE_METRICS: Final = frozenset(BARE_METRICS_LIST.split())
BARE: Final = {
    **{name: f"segments.{name}" for name in BARE_SEGMENTS},
    **{name: f"metrics.{name}" for name in BARE_METRICS},
    "customer_id": "customer.id",
    "campaign_id": "campaign.id",
    "ad_group_id": "ad_group.id",
    "ad_id": "ad_group_ad.ad.id",
    "asset_group_id": "asset_group.id",
    "asset_id": "asset.id",
    "criterion_id": "ad_group_criterion.criterion_id",
    "ad_group_criterion_id": "ad_group_criterion.criterion_id",
    "ad_group_criterion_criterion_id": "ad_group_criterion.criterion_id",
    "keyword_ad_group_criterion": "segments.keyword.ad_group_criterion",
    "country_criterion_id": "geographic_view.country_criterion_id",
    "location_type": "geographic_view.location_type",
    "currency_code": "customer.currency_code",
    "customer_currency_code": "customer.currency_code",
    "time_zone": "customer.time_zone",
    "customer_time_zone": "customer.time_zone",
}


@lru_cache(maxsize=8192)
def _snake(name: str) -> str:
    return CAPITAL.sub("_", name).lower()


@lru_cache(maxsize=8192)
def name_of(key: str) -> str:
    """The query language's name of a top-level key; an unknown bare key stays as it is, in snake case."""
    name = _snake(key.replace("__", "."))
    return name if "." in name else BARE.get(name, name)


def fields_of(row: Mapping[str, object]) -> dict[str, object]:
    """A row's fields by their names in the query language. Longer or deeper ones than the API has are left out."""
    fields: dict[str, object] = {}
    for key, value in row.items():
        if len(key) > LONGEST_NAME:
            continue
        name = name_of(key)
        if type(value) is dict and "." not in name:
            fields.update(_leaves(name, value, 0 if name == "metrics" else DEEPEST))
        else:
            fields[name] = value
    return fields


def _leaves(prefix: str, value: dict[str, object], depth: int) -> Iterator[tuple[str, object]]:
    for key, inner in value.items():
        if len(key) > LONGEST_NAME:
            continue
        name = f"{prefix}.{_snake(key)}"
        if inner and type(inner) is dict and depth:
            yield from _leaves(name, inner, depth - 1)
        else:
            yield name, inner
