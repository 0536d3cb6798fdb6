"""Small N42 documents for tests, as texts."""

NS = 'xmlns="http://physics.nist.gov/N42/2011/N42"'


def slice_xml(number: int, occupied: str = "", body: str = "", *, second: float | None = None, more: str = "") -> str:
    start = f"2026-01-31T09:45:{number if second is None else second:09.6f}Z"
    occupied = f"<OccupancyIndicator>{occupied}</OccupancyIndicator>" if occupied else ""
    return (
        f'<RadMeasurement id="M{number}"><MeasurementClassCode>Background</MeasurementClassCode>'
        f"<StartDateTime>{start}</StartDateTime><RealTimeDuration>PT1S</RealTimeDuration>{body}{more}{occupied}"
        "</RadMeasurement>"
    )


def gross(detector: str, counts: str, windows: str = "", live: str = "PT1S", more: str = "") -> str:
    windows = f' energyWindowsReference="{windows}"' if windows else ""
    return (
        f'<GrossCounts id="g" radDetectorInformationReference="{detector}"{windows}>'
        f"<LiveTimeDuration>{live}</LiveTimeDuration><CountData>{counts}</CountData>{more}</GrossCounts>"
    )


def spectrum(data: str, attributes: str = "", detector: str = "G1", more: str = "", live: str = "PT1S") -> str:
    return (
        f'<Spectrum id="s" radDetectorInformationReference="{detector}" energyCalibrationReference="EC">{more}'
        f"<LiveTimeDuration>{live}</LiveTimeDuration><ChannelData {attributes}>{data}</ChannelData></Spectrum>"
    )


def windows_xml(starts: str, ends: str) -> str:
    return (
        f'<EnergyWindows id="W"><WindowStartEnergyValues>{starts}</WindowStartEnergyValues>'
        f"<WindowEndEnergyValues>{ends}</WindowEndEnergyValues></EnergyWindows>"
    )


CALIBRATION = '<EnergyCalibration id="EC"><CoefficientValues>0 3 0</CoefficientValues></EnergyCalibration>'


def portal_xml(*parts: str, namespace: str = NS, class_code: str = "Portal Monitor") -> bytes:
    detectors = "".join(
        f'<RadDetectorInformation id="{i}"><RadDetectorCategoryCode>{c}</RadDetectorCategoryCode>'
        "<RadDetectorKindCode>PVT</RadDetectorKindCode></RadDetectorInformation>"
        for i, c in (("G1", "Gamma"), ("G2", "Gamma"), ("N1", "Neutron"))
    )
    return (
        f'<RadInstrumentData {namespace}><RadInstrumentInformation id="I"><RadInstrumentManufacturerName>M'
        f"</RadInstrumentManufacturerName><RadInstrumentClassCode>{class_code}</RadInstrumentClassCode>"
        f"</RadInstrumentInformation>{detectors}{''.join(parts)}</RadInstrumentData>"
    ).encode()


def slice_of_three(number: int, occupied: str, g1: str = "10", more: str = "", **settings: object) -> str:
    body = gross("G1", g1, "W" if " " in g1 else "") + gross("G2", "20") + gross("N1", "2")
    return slice_xml(number, occupied, body, more=more, **settings)  # type: ignore[arg-type]
