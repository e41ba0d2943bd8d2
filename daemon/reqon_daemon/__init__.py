"""The service: missions on their schedules, watched, measured, alerted on and resumed."""
