"""Will this parcel be late? Asked when it is handed in; made-up data, known hours later."""
