"""What talks to AWS's control plane: previews, checks, sends and follows jobs of SageMaker.

It imports bincount, never the other way round. Requests are plain dicts for boto3, so that neither the
sagemaker SDK nor sagemaker-core is needed; they are checked against botocore's model of the API.
"""
