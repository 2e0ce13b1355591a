"""Write layers.csv and networks.csv: what the published implementations of the zoo's networks are made of.

The networks are made from the packages below, without trained weights, and exported by torch.onnx; the lists are those of the
exported graphs. The tests of the zoo (frontend/src/zoo/tests.rs) compare its own graphs to them, node by node. Nothing but
this script needs the packages:

    pip install torch torchvision timm effdet segmentation-models-pytorch ultralytics onnx
    python tests/zoo/list_layers.py
"""

import csv
import importlib.metadata
import io
import math
import pathlib
import re
import sys

import onnx
import torch

HERE = pathlib.Path(__file__).parent
#: The newest operator set of torch.onnx's exporter by tracing, whose graphs most files in the wild are.
OPSET = 17
#: Nodes that multiply their input by weights.
PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


class Detections(torch.nn.Module):
    """A detector of ultralytics up to its heads: what decodes boxes is arithmetic on the host in every deployment."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        outputs, x = [], image
        *layers, detect = self.model.model
        for layer in layers:
            if layer.f != -1:
                froms = [layer.f] if isinstance(layer.f, int) else layer.f
                x = [x if at == -1 else outputs[at] for at in froms]
                x = x[0] if isinstance(layer.f, int) else x
            x = layer(x)
            outputs.append(x)
        levels = [outputs[at] for at in detect.f]
        heads = zip(levels, detect.cv2, detect.cv3)
        return [torch.cat((boxes(level), classes(level)), 1) for level, boxes, classes in heads]


class Features(torch.nn.Module):
    """The backbone of EfficientDet and its feature pyramid, without the heads."""

    def __init__(self, detector):
        super().__init__()
        self.backbone, self.fpn = detector.backbone, detector.fpn

    def forward(self, image):
        return self.fpn(self.backbone(image))


def torchvision_model(name):
    import torchvision

    options = {"init_weights": False} if name == "inception_v3" else {}
    if name == "inception_v3":
        options["transform_input"] = False
    return getattr(torchvision.models, name)(**options)


def timm_model(name):
    import timm

    return timm.create_model(name, exportable=True)


def yolov8n():
    from ultralytics.nn.modules import C2f
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolov8n.yaml", verbose=False)
    for module in model.modules():
        if isinstance(module, C2f):
            # As its own exporter does.
            module.forward = module.forward_split
    # A product with the numbers from 0 to 15, which belongs to the decoding of boxes.
    model.model[-1].dfl = None
    return Detections(model)


def efficientdet_d0():
    import effdet

    config = effdet.get_efficientdet_config("efficientdet_d0")
    return Features(effdet.EfficientDet(config, pretrained_backbone=False))


def deeplabv3():
    import segmentation_models_pytorch

    return segmentation_models_pytorch.DeepLabV3("mobilenet_v2", encoder_weights=None, classes=21)


#: Per network of the zoo: the package that has it, its name there, how it is made, width, height.
NETWORKS = {
    "yolov8n": ("ultralytics", "yolov8n.yaml", yolov8n, 640, 640),
    "efficientdet-d0": ("effdet", "efficientdet_d0", efficientdet_d0, 512, 512),
    "vgg16": ("torchvision", "vgg16", torchvision_model, 224, 224),
    "squeezenet": ("torchvision", "squeezenet1_1", torchvision_model, 224, 224),
    "inception-v3": ("torchvision", "inception_v3", torchvision_model, 299, 299),
    "densenet121": ("torchvision", "densenet121", torchvision_model, 224, 224),
    "resnet50": ("torchvision", "resnet50", torchvision_model, 224, 224),
    "regnetx-400mf": ("torchvision", "regnet_x_400mf", torchvision_model, 224, 224),
    "hrnet-w18-small": ("timm", "hrnet_w18_small", timm_model, 224, 224),
    "mobilenetv2": ("torchvision", "mobilenet_v2", torchvision_model, 224, 224),
    "mobilenetv3-large": ("torchvision", "mobilenet_v3_large", torchvision_model, 224, 224),
    "efficientnet-lite0": ("timm", "efficientnet_lite0", timm_model, 224, 224),
    "convnext-tiny": ("torchvision", "convnext_tiny", torchvision_model, 224, 224),
    "mobilevit-xxs": ("timm", "mobilevit_xxs", timm_model, 256, 256),
    "deeplabv3-mobilenetv2": ("segmentation-models-pytorch", "DeepLabV3", deeplabv3, 512, 512),
}


def exported(module, width, height):
    """The graph that torch.onnx writes, with the shapes of all tensors."""
    buffer = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (torch.zeros(1, 3, height, width),),
        buffer,
        opset_version=OPSET,
        dynamo=False,
    )
    return onnx.shape_inference.infer_shapes(onnx.load_from_string(buffer.getvalue()), data_prop=True).graph


def dims_of(graph):
    dims = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    for node in graph.node:
        if node.op_type == "Constant":
            dims[node.output[0]] = list(node.attribute[0].t.dims)
        if node.op_type == "Identity" and node.input[0] in dims:
            dims[node.output[0]] = dims[node.input[0]]
    return dims


def computed_nodes(graph):
    """The nodes that compute something of the input or of parameters, not of shapes."""
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("Constant", "Shape") and known.intersection(node.input):
            known.update(node.output)
            if node.op_type != "Identity":
                yield node


def attributes_of(node):
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def is_idle(node):
    """Whether it is a pool of single elements, as an adaptive one is where the map has the size already."""
    return node.op_type == "AveragePool" and set(attributes_of(node)["kernel_shape"]) == {1}


def only(numbers):
    """The number that all are."""
    (number,) = set(numbers)
    return number


def row(node, dims):
    """What a product is, and its MACs. Rows that are multiplied by a matrix are a map as high as they are many."""
    x, weight, y = dims[node.input[0]], dims[node.input[1]], dims[node.output[0]]
    if node.op_type != "Conv":
        rows = math.prod(y[:-1])
        return [1, 1, 1, 0, 0, 1, 1, x[-1], y[-1], rows, 1], rows * x[-1] * y[-1]
    attributes = attributes_of(node)
    kernel, pads = weight[2:], attributes["pads"]
    assert pads[:2] == pads[2:]
    # The taps of a kernel of one tap have no distance.
    dilation = only(attributes["dilations"]) if math.prod(kernel) > 1 else 1
    shape = [*kernel, only(attributes["strides"]), *pads[:2], dilation, attributes["group"], x[1], *y[1:]]
    return shape, math.prod(weight) * math.prod(y[2:])


COLUMNS = "network op kernel_h kernel_w stride pad_h pad_w dilation groups in out height width then".split()


def main():
    layers, networks = [], []
    for name, (package, model, make, width, height) in NETWORKS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        module = make(model) if make in (torchvision_model, timm_model) else make()
        if hasattr(module, "aux_logits"):
            # Inception's second classifier is there for training only.
            module.aux_logits, module.AuxLogits = False, None
        graph = exported(module, width, height)
        dims, total = dims_of(graph), 0
        for node in computed_nodes(graph):
            if node.op_type in PRODUCTS:
                values, macs = row(node, dims)
                total += macs
                layers.append([name, node.op_type, *values, []])
            elif not is_idle(node):
                layers[-1][-1].append(node.op_type)
        parameters = sum(p.numel() for p in module.parameters())
        version = re.sub(r"\+.*", "", importlib.metadata.version(package))
        networks.append([name, f"{package} {version}", model, width, height, parameters, total])
        print(*networks[-1], file=sys.stderr)
    layers = [[*line[:-1], " ".join(line[-1])] for line in layers]
    with open(HERE / "layers.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *layers])
    with open(HERE / "networks.csv", "w", newline="", encoding="utf-8") as file:
        header = ["network", "source", "model", "width", "height", "parameters", "macs"]
        csv.writer(file, lineterminator="\n").writerows([header, *networks])


main()
