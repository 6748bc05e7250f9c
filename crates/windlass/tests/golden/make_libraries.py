"""Makes libraries/KIND: tiny whole checkpoints of the libraries that are read and not written, packed as tests/oracle/packed.py says.

    python make_libraries.py
"""
import pathlib
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "tests" / "oracle"))
import packed

for kind in ["gptq4-sym-g32", "awq4-g32", "ct4-g32", "ct-nvfp4", "fp8", "modelopt-nvfp4"]:
    with tempfile.TemporaryDirectory() as folder:
        packed.save(HERE / "models" / "llama", pathlib.Path(folder), kind)
        shutil.rmtree(HERE / "libraries" / kind, ignore_errors=True)
        shutil.copytree(pathlib.Path(folder) / kind, HERE / "libraries" / kind)
