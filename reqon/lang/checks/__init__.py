"""The static checks (spec/language.md 5), one noun a module; `reqon.lang.check` puts them together."""
