<!doctype html>
</html>
