"""Between a submission file and the leaderboard."""
