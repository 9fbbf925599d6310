"""Every protection, and the plan that gives each channel one."""

from framp_private.protections.base import (
    CHANNELS as CHANNELS,
    Channel as Channel,
    Protection as Protection,
    ServerView as ServerView,
    Total as Total,
)
from framp_private.protections.central import AdaptiveClip as AdaptiveClip, CentralGaussian as CentralGaussian
from framp_private.protections.distributed import (
    DistributedGaussian as DistributedGaussian,
    DistributedSkellam as DistributedSkellam,
)
from framp_private.protections.gaussian import LocalGaussian as LocalGaussian, chain as chain
from framp_private.protections.homomorphic import BFVSum as BFVSum, CKKSSum as CKKSSum
from framp_private.protections.plain import PlainSum as PlainSum
from framp_private.protections.post_processed import PostProcessed as PostProcessed
from framp_private.protections.secagg import SecAgg as SecAgg
from framp_private.protections.plan import Plan as Plan
