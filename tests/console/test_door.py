"""Who may ask the console's server: this machine's own page, with a token that works once."""

import http.client
from urllib.parse import urlsplit

from tests.console.site import Console


def ask(url, path, *, method="GET", host=None, **headers):
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": host or where.netloc, **headers})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_door(tmp_path, site):
    with Console([site.address], tmp_path / "state") as console:
        look(console)


def look(console):
    where = urlsplit(console.url)
    entrance = f"{where.path}?{where.query}"
    assert ask(console.url, entrance, host="evil.example")[0] == 421
    assert ask(console.url, "/api/state")[0] == 401
    assert ask(console.url, "/?token=wrong")[0] == 401
    status, headers, _ = ask(console.url, entrance)
    assert status == 303
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=strict" in headers["set-cookie"]
    assert ask(console.url, entrance)[0] == 401, "a token works once"
    cookie = headers["set-cookie"].split(";")[0]
    status, headers, body = ask(console.url, "/", Cookie=cookie)
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert b"http://" not in body
    assert b"https://" not in body
    assert ask(console.url, "/api/state", Cookie=cookie)[0] == 200
    assert ask(console.url, "/api/state", Cookie=cookie, Origin="http://evil.example")[0] == 403
    assert ask(console.url, "/api/open", method="POST", Cookie=cookie)[0] == 403, "a form of another page has no header"
    assert ask(console.url, "/api/open", method="POST", Cookie=cookie, **{"X-Scanlane": "1"})[0] == 404
    assert ask(console.url, "/static/../web.py", Cookie=cookie)[0] == 404
    assert ask(console.url, "/tile/none/none/high/0/0/0.u16", Cookie=cookie)[0] == 404
    code, errors = console.stop()
    assert (code, errors) == (0, "")
