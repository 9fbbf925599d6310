"""Private, personalised federated learning with FRAMP (arXiv 2604.11278).

Everything public is importable from here::

    from framp_private import FederatedDataset, TargetNetwork, federate, framp, train

    dataset = FederatedDataset.from_arrays({"north": (x, y), "south": (x2, y2)})
    federation = federate(framp(), TargetNetwork(build), list(dataset.clients), rounds=20)
    run = train(federation, dataset)
    run.model("north")          # an ordinary torch module
"""

from framp_private import errors as errors
from framp_private import protections as protections
from framp_private.config import Config as Config
from framp_private.checkpoint import write_atomically as write_atomically
from framp_private.costs import channel_costs as channel_costs
from framp_private.data.base import ClientData as ClientData
from framp_private.data.base import FederatedDataset as FederatedDataset
from framp_private.data.base import Schema as Schema
from framp_private.datasets import load_dataset as load_dataset
from framp_private.federated import messages as messages
from framp_private.federated.client import Client as Client
from framp_private.federated.client import ClientState as ClientState
from framp_private.federated.client import Plant as Plant
from framp_private.federated.descriptor import DescriptorRule as DescriptorRule
from framp_private.federated.federation import Federation as Federation
from framp_private.federated.local_training import Alignment as Alignment
from framp_private.federated.local_training import LocalSGD as LocalSGD
from framp_private.federated.local_training import Summing as Summing
from framp_private.federated.local_training import decayed as decayed
from framp_private.federated.prototypes import local_prototypes as local_prototypes
from framp_private.federated.pullback import Pullback as Pullback
from framp_private.federated.pullback import ServerStep as ServerStep
from framp_private.methods import Method as Method
from framp_private.methods import federate as federate
from framp_private.methods import fedavg as fedavg
from framp_private.methods import fiarse as fiarse
from framp_private.methods import framp as framp
from framp_private.methods import framp_layerwise as framp_layerwise
from framp_private.methods import framp_static_mask as framp_static_mask
from framp_private.methods import framp_without_alignment as framp_without_alignment
from framp_private.methods import framp_without_hypernetwork as framp_without_hypernetwork
from framp_private.methods import local as local
from framp_private.models.hypernetwork import Generator as Generator
from framp_private.models.mask_coding import decode_mask as decode_mask
from framp_private.models.mask_coding import encode_mask as encode_mask
from framp_private.models.psi import HypernetworkShape as HypernetworkShape
from framp_private.models.submodel import SubmodelRule as SubmodelRule
from framp_private.models.target import TargetNetwork as TargetNetwork
from framp_private.privacy.ledger import Ledger as Ledger
from framp_private.protections import PlainSum as PlainSum
from framp_private.protections import Plan as Plan
from framp_private.randomness import Entropy as Entropy
from framp_private.randomness import Streams as Streams
from framp_private.run_folder import RunFolder as RunFolder
from framp_private.runs import load_run as load_run
from framp_private.runs import load_setup as load_setup
from framp_private.runs import run_config as run_config
from framp_private.secure_sums import secure_sum as secure_sum
from framp_private.training import Options as Options
from framp_private.training import Run as Run
from framp_private.training import train as train
from framp_private.transcript import Delivery as Delivery
from framp_private.reopening import reopened_totals as reopened_totals
from framp_private.transcript import read_transcript as read_transcript
from framp_private.wire import decode as decode
from framp_private.wire import encode as encode
from framp_private.assemble import make_config as make_config
from framp_private.version import __version__ as __version__
