"""Airflow's sign-in behind the pages: a token goes in, a user with a standing comes out. Runs in the api-server."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf

from perennial.errors import AccessRefused
from perennial.pages.identity import User
from perennial.pages.roles import Role


async def identify(token: str | None) -> User:
    """The user of a token, by whatever auth manager Airflow runs; AccessRefused when there is none.

    The standing is what Airflow lets the person do, asked in the one way that every auth manager answers: who may write assets is
    an operator, who may start runs an editor, who may see plugins a viewer.
    """
    from airflow.api_fastapi.core_api.security import resolve_user_from_token
    from anyio import to_thread
    from fastapi import HTTPException

    if conf.getboolean("core", "simple_auth_manager_all_admins", fallback=False):
        raise AccessRefused(
            503, "simple_auth_manager_all_admins makes everybody an administrator; the pages stay closed"
        )
    try:
        user = await resolve_user_from_token(token)
    except HTTPException as error:
        told = "sign in to Airflow first" if error.status_code == 401 else "this sign-in is not valid"
        raise AccessRefused(401 if error.status_code == 401 else 403, told) from error
    standing = await to_thread.run_sync(standing_of, user)
    return User(id=str(user.get_id()), name=str(user.get_name()), standing=standing)


def standing_of(user: Any) -> Role:
    """The role that a person's rights in Airflow stand for; whatever cannot be answered counts as no."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity

    manager = get_auth_manager()
    if manager.is_authorized_asset(method="POST", user=user):
        return Role.OPERATOR
    if manager.is_authorized_dag(method="POST", access_entity=DagAccessEntity.RUN, user=user):
        return Role.EDITOR
    if manager.is_authorized_view(access_view=AccessView.PLUGINS, user=user):
        return Role.VIEWER
    return Role.NOBODY


def cookie_name() -> str:
    """The cookie in which Airflow's UI keeps its token."""
    from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN

    return str(COOKIE_NAME_JWT_TOKEN)


def own_origins() -> tuple[str, ...]:
    """The origin of ``[api] base_url``, for a proxy that changes the Host header; empty when it is not set."""
    from urllib.parse import urlsplit

    parts = urlsplit(conf.get("api", "base_url", fallback="") or "")
    return (f"{parts.scheme}://{parts.netloc}",) if parts.scheme in {"http", "https"} and parts.netloc else ()
