"""The world of the simulation: markets with their currencies, merchant categories, and when people pay.

Currencies and their minor units are ISO 4217's. Prices, exchange rates and shares are round numbers, not statistics;
local time ignores daylight saving.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Market:
    """A country that cards and merchants belong to.

    Attributes:
        country: ISO 3166 alpha-2 code.
        currency: ISO 4217 code.
        minor_digits: decimal digits of the currency's minor unit; 0 for JPY, 3 for KWD.
        units_per_euro: rough exchange rate.
        utc_offset_minutes: local standard time.
        weight: share of cards and merchants, relative.
    """

    country: str
    currency: str
    minor_digits: int
    units_per_euro: float
    utc_offset_minutes: int
    weight: float


@dataclass(frozen=True, slots=True)
class Category:
    """A line of business.

    Attributes:
        name: as in the payload.
        median_euro: median amount of a purchase.
        spread: sigma of the amount's logarithm.
        online_share: share of its merchants that sell online only.
        weight: share of merchants, relative.
        open_amount_share: share of its payments whose amount is not known yet (tips, fuel pumps): null.
    """

    name: str
    median_euro: float
    spread: float
    online_share: float
    weight: float
    open_amount_share: float = 0.0


MARKETS: tuple[Market, ...] = (
    Market("SE", "SEK", 2, 11.3, 60, 10),
    Market("DE", "EUR", 2, 1.0, 60, 14),
    Market("GB", "GBP", 2, 0.86, 0, 12),
    Market("US", "USD", 2, 1.1, -300, 14),
    Market("NO", "NOK", 2, 11.6, 60, 5),
    Market("DK", "DKK", 2, 7.46, 60, 4),
    Market("FI", "EUR", 2, 1.0, 120, 4),
    Market("NL", "EUR", 2, 1.0, 60, 5),
    Market("BE", "EUR", 2, 1.0, 60, 3),
    Market("FR", "EUR", 2, 1.0, 60, 5),
    Market("ES", "EUR", 2, 1.0, 60, 4),
    Market("IT", "EUR", 2, 1.0, 60, 4),
    Market("PT", "EUR", 2, 1.0, 0, 2),
    Market("IE", "EUR", 2, 1.0, 0, 2),
    Market("AT", "EUR", 2, 1.0, 60, 4),
    Market("CH", "CHF", 2, 0.95, 60, 3),
    Market("PL", "PLN", 2, 4.3, 60, 4),
    Market("CZ", "CZK", 2, 25.0, 60, 2),
    Market("HU", "HUF", 2, 390.0, 60, 1),
    Market("RO", "RON", 2, 5.0, 120, 1),
    Market("GR", "EUR", 2, 1.0, 120, 1),
    Market("IS", "ISK", 0, 150.0, 0, 0.5),
    Market("TR", "TRY", 2, 35.0, 180, 1),
    Market("CA", "CAD", 2, 1.48, -300, 3),
    Market("MX", "MXN", 2, 20.0, -360, 1),
    Market("BR", "BRL", 2, 5.9, -180, 1),
    Market("CL", "CLP", 0, 1_000.0, -240, 0.5),
    Market("AU", "AUD", 2, 1.65, 600, 3),
    Market("NZ", "NZD", 2, 1.8, 720, 1),
    Market("JP", "JPY", 0, 160.0, 540, 1),
    Market("KR", "KRW", 0, 1_480.0, 540, 0.5),
    Market("SG", "SGD", 2, 1.45, 480, 0.5),
    Market("IN", "INR", 2, 91.0, 330, 1),
    Market("AE", "AED", 2, 4.0, 240, 0.5),
    Market("KW", "KWD", 3, 0.33, 180, 0.3),
    Market("TN", "TND", 3, 3.4, 60, 0.2),
)

CATEGORIES: tuple[Category, ...] = (
    Category("grocery", 28.0, 0.7, 0.08, 20),
    Category("restaurant", 24.0, 0.6, 0.02, 16, 0.06),
    Category("fuel", 48.0, 0.4, 0.0, 6, 0.15),
    Category("fashion", 55.0, 0.7, 0.35, 14),
    Category("electronics", 140.0, 0.9, 0.4, 7),
    Category("travel", 230.0, 0.9, 0.7, 4, 0.02),
    Category("hotel", 160.0, 0.6, 0.1, 3, 0.05),
    Category("digital_goods", 9.0, 0.7, 1.0, 6),
    Category("pharmacy", 18.0, 0.6, 0.15, 7),
    Category("home", 75.0, 0.9, 0.3, 8),
    Category("entertainment", 32.0, 0.6, 0.3, 5),
    Category("transport", 11.0, 0.8, 0.1, 4),
)

HOUR_RHYTHM: tuple[float, ...] = (
    *(0.25, 0.12, 0.08, 0.06, 0.08, 0.2),
    *(0.5, 0.9, 1.1, 1.1, 1.2, 1.5),
    *(1.9, 1.7, 1.3, 1.3, 1.6, 2.0),
    *(2.1, 1.8, 1.4, 1.1, 0.8, 0.5),
)
"""Payments in each local hour, relative: lunch and the way home are the peaks."""

WEEKDAY_RHYTHM: tuple[float, ...] = (0.9, 0.9, 0.95, 1.0, 1.25, 1.25, 0.75)
"""Payments on each local weekday, Monday first."""
