"""A workload as a dlt pipeline that merges by key into SQLite. Needs `pip install "dlt[sqlalchemy]"`.

python benchmarks/peers/dlt_run.py w2 --url http://127.0.0.1:8799/10000-100-0 --pages 100 --out DIR
"""

import argparse
import os
import shutil

parser = argparse.ArgumentParser()
parser.add_argument("work", choices=["w1", "w2", "w3"])
parser.add_argument("--url", required=True)
parser.add_argument("--pages", type=int, default=100)
parser.add_argument("--out", default="out")
options = parser.parse_args()

shutil.rmtree(options.out, ignore_errors=True)
folder = os.path.abspath(options.out)
os.makedirs(folder)
os.environ["DLT_DATA_DIR"] = folder + "/dlt"
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
os.environ["DATA_WRITER__DISABLE_COMPRESSION"] = "true"

import dlt  # noqa: E402  # it reads its settings when it is imported
from dlt.sources.rest_api import rest_api_resources  # noqa: E402
from raw_py import normal  # noqa: E402  # a script's own folder is on the path

pager = {
    "type": "page_number",
    "base_page": 1,
    "page_param": "page",
    "total_path": None,
    "maximum_page": options.pages + 1,
}
endpoint = {"path": "customers", "data_selector": "data", "paginator": pager}
resource = {"name": "customers", "primary_key": "id", "write_disposition": "merge", "endpoint": endpoint}
(customers,) = rest_api_resources({"client": {"base_url": options.url + "/"}, "resources": [resource]})
resources = [customers]
if options.work in ("w2", "w3"):

    @dlt.transformer(data_from=customers, name="normalized", primary_key="id", write_disposition="merge")
    def normalized(rows):
        yield [normal(row) for row in rows]

    resources.append(normalized)
for each in resources:
    each.max_table_nesting = 0
destination = dlt.destinations.sqlalchemy(f"sqlite:///{folder}/store.db")
pipeline = dlt.pipeline("bench", destination=destination, dataset_name="main", pipelines_dir=folder + "/pipelines")
pipeline.run(resources).raise_on_failed_jobs()
