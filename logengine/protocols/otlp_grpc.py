"""OTLP over gRPC: the method, and how a refusal says when to try again.

`intake.otlp_grpc` is the server. Source: the OpenTelemetry Protocol specification 1.10, OTLP/gRPC.
"""

from logengine.protocols.lines import LinesReceiver
from logengine.protocols.otlp import PACKAGES
from logengine.protocols.wire import NoAnswers, WireProtocol

SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
METHOD = "Export"
# The trailer in which gRPC has a google.rpc.Status.
STATUS_TRAILER = "grpc-status-details-bin"

PROTOCOL = WireProtocol(
    "otlp-grpc",
    ("stream",),
    LinesReceiver,
    NoAnswers(),
    served_by="grpc",
    packages=PACKAGES,
    extra="otlp",
    over_network=True,
    tls_names=("h2",),
)
