"""OpenAPI documents: what an API says of itself, as operations that can be called and answers that can be checked.

From the bottom up: `reading` (bytes to values), `swagger` (2.0 as 3.0), `document` (one document, in pieces),
`references` (what `$ref` means), `parameters` and `operation` (a call's parts), `schemas` (to JSON Schema 2020-12),
`explaining` (what in an answer does not fit), `validation` (an answer against it), `mock` (made-up answers), `remote`
(documents from URLs), `loading` (all of it).
"""
