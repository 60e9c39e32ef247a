"""Which versions may serve everything: released, judged well by the gates on exactly these bytes, approved where that was asked."""

from __future__ import annotations

from perennial.domain.words import GateAction
from perennial.errors import PromotionRefused
from perennial.flows.ports import Ports


def require_served_permission(ports: Ports, agent: str, version: str) -> None:
    """Raise PromotionRefused unless the ledger covers this version: its release, a verdict on its bytes that does not hold, and
    a live approval where the verdict asks for one. The signature is verified where the bytes are read (``bundle_folder``)."""
    release = ports.ledger.version(agent, version)
    if release is None:
        raise PromotionRefused(f"{agent} {version} was never released; train and register it")
    report = ports.ledger.gate_report(release.job_id) if release.job_id is not None else None
    if report is None:
        raise PromotionRefused(f"no gate report covers {agent} {version}; train it anew")
    if report.content_digest != release.manifest["content_digest"]:
        raise PromotionRefused(f"the gates judged other bytes than those of {agent} {version}; train it anew")
    action = GateAction(report.action)
    if action is GateAction.HOLD:
        raise PromotionRefused(f"the gates hold {agent} {version}; read its report")
    if action is GateAction.APPROVE and not ports.ledger.live_approval(report.job_id, report.content_digest):
        raise PromotionRefused(f"no live approval covers {agent} {version}; answer its required action in Airflow")
