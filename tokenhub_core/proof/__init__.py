"""What providers sent against what callers were given, in a form that can be shown later without what was said."""
