"""Notification: those whom policy obliges the gateway to tell are told, from the log, at least once."""

from secure_gateway.notify.settings import NotifySettings
from secure_gateway.notify.webhook import Webhook, notification_wanted

__all__ = ["NotifySettings", "Webhook", "notification_wanted"]
