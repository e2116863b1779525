"""What more than one verb takes where nothing is said."""

TEMPERATURE = 0.8  # of plain text: the likeliest token alone soon goes in circles
