"""What must hold of the parcels."""

import dataframely as dy


class Parcels(dy.Schema):
    """The rows that are asked about and learned from."""

    parcel_id = dy.Int64(primary_key=True)
    depot = dy.String(regex="^(north|port|south)$")
    weight = dy.Float64(min=0)
