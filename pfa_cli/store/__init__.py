"""The results database, from what it holds to what leaves it.

``schema`` (its versions: ``migrations``) → ``engine`` opens it → ``writer`` and ``queries`` → ``export``, ``merge``,
``check``, ``salvage``. None of it imports torch.
"""
