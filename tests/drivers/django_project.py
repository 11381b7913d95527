"""A Django project's commands through the URL in DATABASE_URL: `migrate`, twice, and what `manage.py test` does, with a
database of its own that it makes and drops. Prints `all ok` at the end.
"""

import os
import unittest
from collections import Counter

import django
from django.conf import settings
from django.core.management import call_command
from psycopg.conninfo import conninfo_to_dict

PARTS = conninfo_to_dict(os.environ["DATABASE_URL"])
NAMES = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}

settings.configure(
    DATABASES={
        "default": {
            **{key: PARTS.get(name, "") for key, name in NAMES.items()},
            "ENGINE": "django.db.backends.postgresql",
            # As Django's documentation asks for behind a pooler.
            "DISABLE_SERVER_SIDE_CURSORS": True,
        }
    },
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django.contrib.sites",
        "django.contrib.flatpages",
        "django.contrib.redirects",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    MIDDLEWARE=[],
    USE_TZ=True,
)
django.setup()

from django.apps import apps  # noqa: E402
from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.contenttypes.models import ContentType  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import TestCase, TransactionTestCase  # noqa: E402
from django.test.runner import DiscoverRunner  # noqa: E402


def check_content_types():
    expected = Counter((model._meta.app_label, model._meta.model_name) for model in apps.get_models())
    found = Counter(ContentType.objects.values_list("app_label", "model"))
    assert found == expected, found ^ expected
    assert Permission.objects.count() == 4 * len(expected), Permission.objects.count()


class InATransaction(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.user = User.objects.create_user("one", password="secret")

    def test_what_was_created_is_found(self):
        self.assertTrue(User.objects.get(username="one").check_password("secret"))
        group, created = Group.objects.get_or_create(name="group")
        self.assertTrue(created)
        self.user.groups.add(group)
        self.assertFalse(Group.objects.get_or_create(name="group")[1])
        self.assertEqual(User.objects.filter(groups__name="group").count(), 1)

    def test_what_another_test_created_is_gone(self):
        self.assertFalse(Group.objects.exists())


class Committed(TransactionTestCase):
    def test_what_was_committed_is_found(self):
        for number in range(50):
            user = User.objects.create(username=f"user {number}")
            self.assertEqual(User.objects.get(pk=user.pk).username, f"user {number}")
            self.assertEqual(User.objects.count(), number + 1)

    def test_tables_are_flushed_behind_each(self):
        self.assertEqual(User.objects.count(), 0)
        check_content_types()


class Runner(DiscoverRunner):
    def build_suite(self, *args, **kwargs):
        loader = unittest.defaultTestLoader
        return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in (InATransaction, Committed))


for _ in range(2):
    call_command("migrate", verbosity=0, interactive=False)
    check_content_types()
for _ in range(3):
    failed = Runner(verbosity=0, interactive=False).run_tests([])
    assert failed == 0, failed
connections.close_all()
print("all ok")
