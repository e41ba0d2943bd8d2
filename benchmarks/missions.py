"""The workloads as missions; `big_mission` is one of many lines."""

HEAD = """mission {name} {{
  {options}source Shop {{ auth: none, base: "{url}" }}
  store customers: {kind}("customers")
  store normalized: {kind}("normalized")
  store details: {kind}("details")
"""

PULL = """
  action Pull {{
    get "/customers" {{ paginate: page(page, {size}) }}
    store response -> customers {{ key: .id, upsert: true }}
  }}
"""

NORMALISE = """
  action Normalise {
    for customer in customers {
      map customer -> Contact {
        id: .id,
        name: .firstName + " " + .lastName,
        label: .lastName + ", " + .firstName + " <" + .email + ">",
        state: match .status { "ACTIVE" => "active", "TRIAL" => "trial", "SUSPENDED" => "on-hold", _ => "closed" },
        place: .address.city + " (" + .address.country + ")",
        tagCount: length(.tags),
        cents: round(.total * 100),
        bigSpender: .total > 20000 and .status == "ACTIVE"
      }
      validate response {
        assume length(.id) == 9,
        assume .cents >= 0,
        assume .tagCount > 0 and length(.name) > 3
      }
      store response -> normalized { key: .id, upsert: true }
    }
  }
"""

DETAIL = """
  action Pull {{
    get "/customers"
    store response.data -> customers {{ key: .id }}
  }}
  action Detail {{
    for customer in customers{parallel} {{
      get "/customers/{{customer.id}}"
      store response -> details {{ key: .id }}
    }}
  }}
"""


def pull(url: str, *, size: int = 100, kind: str = "file") -> str:
    """W1: pages into a store."""
    return HEAD.format(name="Pull", url=url, kind=kind, options="") + PULL.format(size=size) + "  run Pull\n}\n"


def normalise(url: str, *, size: int = 100, kind: str = "file", state: bool = True) -> str:
    """W2, W3: W1, then each item is mapped (8 fields), checked (3 assumptions) and kept in a second store."""
    options = "" if state else "enableState: false\n  "
    head = HEAD.format(name="Normalise", url=url, kind=kind, options=options)
    return head + PULL.format(size=size) + NORMALISE + "  run Pull then Normalise\n}\n"


def details(url: str, *, parallel: int = 0) -> str:
    """W4: one request for each item; `parallel` at once."""
    head = HEAD.format(name="Details", url=url, kind="memory", options="")
    body = DETAIL.format(parallel=" parallel" if parallel else "")
    if parallel:
        body = body.replace("action Detail {", f"action Detail {{\n    concurrency: {parallel}")
    return head + body + "  run Pull then Detail\n}\n"


def streamed(url: str, *, size: int = 1000) -> str:
    """Pages mapped item by item into one file store, in memory that does not grow with the pages."""
    head = HEAD.format(name="Streamed", url=url, kind="file", options="")
    return (
        head
        + f"""
  action Pull {{
    get "/customers" {{ paginate: page(page, {size}) }}
    for customer in response {{
      map customer -> Contact {{ id: .id, name: .firstName + " " + .lastName, cents: round(.total * 100) }}
      store response -> normalized {{ key: .id }}
    }}
  }}
  run Pull
}}
"""
    )


TRIVIAL = """mission Nothing {
  source Shop { auth: none, base: "http://127.0.0.1:9" }
  action Rest { let answer = 42 }
  run Rest
}
"""


def big_mission(lines: int = 2000) -> str:
    """A mission of about so many lines, of which the run needs next to nothing."""
    text = ["mission Big {", '  source Shop { auth: none, base: "http://127.0.0.1:9" }', '  store done: memory("done")']
    text += ["  action Start {", "    let answer = 42", "  }"]
    number = 0
    while len(text) < lines:
        number += 1
        text += (
            NORMALISE.replace("Normalise", f"Step{number}")
            .replace("in customers", "in done")
            .replace("-> normalized", "-> done")
            .rstrip("\n")
            .split("\n")
        )
    return "\n".join([*text, "  run Start", "}"]) + "\n"
