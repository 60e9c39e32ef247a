"""The story of the README, told on a running stack with a stream of news that the project writes itself."""
