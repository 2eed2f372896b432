"""What must hold of the flights before anything is trained on them."""

import dataframely as dy


class Flights(dy.Schema):
    """The rows that are asked about and learned from."""

    flight_id = dy.String(primary_key=True)
    scheduled_at = dy.Datetime(time_zone="UTC", time_unit="us")
    origin = dy.String(regex="^(EWR|JFK|LGA)$")
    tailnum = dy.String(nullable=True)
    carrier = dy.String(regex="^[A-Z0-9]{2}$")
    distance = dy.Int64(min=1, max=6000)
    hour = dy.Int64(min=0, max=23)
