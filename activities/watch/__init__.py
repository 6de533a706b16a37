"""The watch as an activity: what is read from Prometheus, how it is judged live, and the evidence that is stored."""
